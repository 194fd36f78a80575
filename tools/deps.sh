#!/bin/bash
# Installs what the goals of `make deps GOAL...` need and what is missing: tools/deps.sh [GOAL]...
#
# With apt-get (Debian, Ubuntu), as root. Elsewhere, and to others, it says what to install and
# fails. What a lint check alone needs is optional, and so are the clients that demos are tried with:
# where they are not to be had, that check is skipped.
export LC_ALL=C

# What is looked for (commands or files, one of which is enough), and the package that has it with
# apt, dnf and pacman; "-": not to be had. A "?" in front: optional.
packages='
compile   g++                                g++                 gcc-c++             gcc
compile   ar                                 binutils            binutils            binutils
pkgconfig pkg-config                         pkg-config          pkgconf-pkg-config  pkgconf
protobuf  protoc                             protobuf-compiler   protobuf-compiler   protobuf
protobuf  /usr/include/google/protobuf/message.h libprotobuf-dev protobuf-devel      protobuf
spdlog    /usr/include/spdlog/spdlog.h       libspdlog-dev       spdlog-devel        spdlog
catch     /usr/include/catch2/catch.hpp|/usr/include/catch2/catch_all.hpp catch2 catch-devel catch2
clients   ?curl                              curl                curl                curl
lint      ?clang++                           clang               clang               clang
lint      ?/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.ubsan*|/usr/lib/clang/*/lib/*/libclang_rt.ubsan* libclang-rt-dev compiler-rt compiler-rt
lint      ?clang-format-14                   clang-format-14     -                   -
lint      ?strace                            strace              strace              strace
lint      ?valgrind                          valgrind            valgrind            valgrind
lint      ?doxygen                           doxygen             doxygen             doxygen
lint      ?gdb                               gdb                 gdb                 gdb
docs      doxygen                            doxygen             doxygen             doxygen
tidy      clang++                            clang               clang               clang
tidy      clang-tidy                         clang-tidy          clang-tools-extra   clang
format    clang-format-14                    clang-format-14     -                   -
install   cmake                              cmake               cmake               cmake
install   meson                              meson               meson               meson
install   ninja                              ninja-build         ninja-build         ninja
cross     aarch64-linux-gnu-g++              g++-aarch64-linux-gnu   gcc-c++-aarch64-linux-gnu aarch64-linux-gnu-gcc
cross     arm-linux-gnueabihf-g++            g++-arm-linux-gnueabihf - -
cross     s390x-linux-gnu-g++                g++-s390x-linux-gnu     gcc-c++-s390x-linux-gnu   -
cross     qemu-s390x-static|qemu-s390x       qemu-user-static        qemu-user-static          qemu-user-static
cross     ?riscv64-linux-gnu-g++             g++-riscv64-linux-gnu   gcc-c++-riscv64-linux-gnu riscv64-linux-gnu-gcc
cross     ?i686-linux-gnu-g++                g++-i686-linux-gnu  -                   -
cross     ?clang++                           clang               clang               clang
cross     ?/usr/include/c++/v1/version        libc++-dev              libcxx-devel            libc++
cross     ss                                 iproute2                iproute                   iproute2
debian    dpkg-buildpackage                  dpkg-dev            -                   -
debian    dh                                 debhelper           -                   -
debian    lintian                            lintian             -                   -
fresh     debootstrap                        debootstrap         debootstrap         debootstrap
bench     gnuplot                            gnuplot-nox         gnuplot             gnuplot
bench     valgrind                           valgrind            valgrind            valgrind
bench     /usr/include/asio.hpp              libasio-dev         asio-devel          asio
bench     /usr/include/uv.h                  libuv1-dev          libuv-devel         libuv
bench     /usr/include/event2/event.h        libevent-dev        libevent-devel      libevent
'

groups_of() {  # goal
  case $1 in
    demo) echo compile pkgconfig protobuf spdlog ;;
    test) echo compile pkgconfig protobuf spdlog catch clients lint ;;
    lint) echo compile pkgconfig protobuf spdlog catch lint ;;
    test-cross) echo compile catch cross ;;
    test-* | check) echo compile pkgconfig protobuf spdlog catch clients ;;
    soak | fuzz | programs-*) echo compile pkgconfig protobuf spdlog catch ;;
    compile_commands.json) echo compile pkgconfig protobuf spdlog ;;
    installcheck) echo compile pkgconfig protobuf spdlog install ;;
    docs) echo docs ;;
    debcheck) echo compile debian ;;
    fresh) echo fresh ;;
    tidy) echo tidy ;;
    format | format-check) echo format ;;
    bench-peers | bench-report) echo compile bench ;;
    clean | help) ;;
    *) echo compile ;;
  esac
}

present() {  # commands or files
  local thing
  for thing in ${1//|/ }; do
    case $thing in
      /*) [ ! -e "$thing" ] || return 0 ;;
      *) ! command -v "$thing" >/dev/null 2>&1 || return 0 ;;
    esac
  done
  return 1
}

for column in apt:apt-get dnf:dnf pacman:pacman none; do
  manager=${column%%:*}
  ! command -v "${column##*:}" >/dev/null 2>&1 || break
done

# Sets `needed` and `optional` to the packages that are missing.
needed= optional=
look() {  # group...
  local group thing apt dnf pacman package
  while read -r group thing apt dnf pacman; do
    case " $* " in *" $group "*) ;; *) continue ;; esac
    ! present "${thing#\?}" || continue
    case $manager in dnf) package=$dnf ;; pacman) package=$pacman ;; *) package=$apt ;; esac
    case " $needed $optional $package " in *" $package "*" $package "*) continue ;; esac
    case $package:$thing in
      -:*) echo "deps: there is no package with ${thing#\?} here" >&2 ;;
      *:\?*) optional="$optional $package" ;;
      *) needed="$needed $package" ;;
    esac
  done <<<"$packages"
}

groups=
for goal in "${@:-all}"; do groups="$groups $(groups_of "$goal")"; done
# shellcheck disable=SC2086
look $groups
[ -n "$needed$optional" ] || exit 0

case $manager in
  apt) command="apt-get install -y --no-install-recommends" ;;
  dnf) command="dnf install -y" ;;
  pacman) command="pacman -S --needed" ;;
esac
# What is optional is no part of the command, which fails as a whole for a name that is unknown here.
if [ $manager != apt ] || [ "$(id -u)" != 0 ]; then
  [ $manager != apt ] || command="apt-get update && $command"
  if [ -n "$needed" ] && [ $manager = none ]; then
    echo "deps: these are missing, by the names that Debian gives them:$needed" >&2
  elif [ -n "$needed" ]; then
    printf '%s\n' "deps: packages are missing. As root, run:" "  $command$needed" >&2
  fi
  [ -z "$optional" ] || echo "deps: optional, since a check without its tool is skipped:$optional" >&2
  [ -z "$needed" ]  # without the optional ones it can go on
  exit
fi

# Shows the long steps while they run, and everything when they fail.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {  # command...
  "$@" </dev/null 2>&1 | tee -a "$log" | sed -unE \
    -e 's/^Need to get (.*)\.$/deps: fetches \1/p' \
    -e 's/^(After this operation), (.*)\.$/deps: takes \2/p' \
    -e 's/^Setting up ([^ :]+).*/  DEPS  \1/p'
  [ "${PIPESTATUS[0]}" = 0 ] && return
  cat "$log" >&2
  echo "deps: failed: $*" >&2
  exit 1
}
export DEBIAN_FRONTEND=noninteractive
on_offer() { [ -n "$(apt-cache madison "$1" 2>/dev/null)" ]; }

# The lists need not be read anew for something that the last ones did not have.
if [ -n "$needed" ] || ! on_offer g++ || { for package in $optional; do on_offer "$package" && break; done; }; then
  echo "deps: reads the lists of packages"
  run apt-get -o Acquire::Retries=3 update
fi
for package in $optional; do
  if on_offer "$package"; then
    needed="$needed $package"
  else
    echo "deps: there is no $package here; the check that needs it is skipped"
  fi
done
[ -n "$needed" ] || exit 0
echo "deps: installs$needed"
# shellcheck disable=SC2086
run $command -o Acquire::Retries=3 $needed
