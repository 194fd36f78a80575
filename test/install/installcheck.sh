#!/bin/bash
# Installs into a folder of its own, and builds and runs programs against that in each way that the
# README offers: test/install/installcheck.sh TARBALL. Started by `make installcheck`.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
tarball=$(realpath "$1") || exit 1
source=$PWD
consumer=$source/test/install/consumer
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
log=$scratch/log
checks=0
failures=0

# Says how it went; what a step prints is shown only if it fails.
step() {  # name, command...
  local name=$1
  shift
  checks=$((checks + 1))
  if "$@" >"$log" 2>&1; then
    echo "ok    $name"
  else
    failures=$((failures + 1))
    echo "FAIL  $name: $*"
    cat "$log"
  fi
}
# Ours, whatever the make that started this was told.
run_make() { env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make "$@"; }
missing() {  # tools
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || { echo "skip  no $tool here: make deps installcheck"; return 0; }
  done
  return 1
}

# --- The tree. -----------------------------------------------------------------------------------

stage=$scratch/stage
lib=usr/lib/multi-arch  # not the default, so that nothing leans on it
folders=(PREFIX=/usr "LIBDIR=/$lib")
install_strictly() { (umask 077 && run_make install DESTDIR="$stage" "${folders[@]}"); }
step "install under a strict umask" install_strictly

modes() {
  local bad
  bad=$(find "$stage" -mindepth 1 \( -type d ! -perm 755 -o -type f ! -perm 644 ! -name '*.so.*.*' -o \
    -name '*.so.*.*' -type f ! -perm 755 \) -printf '%m %P\n')
  [ -z "$bad" ] || { echo "$bad"; return 1; }
}
step "files and folders can be read by all" modes

tree() {
  local file
  for file in include/xtcp/*.h include/xtcp/testing/*.h; do cmp "$file" "$stage/usr/$file" || return; done
  for file in libxtcp.a libxtcp_pic.a libxtcp.so libxtcp.so.0 pkgconfig/xtcp.pc pkgconfig/xtcp-spdlog.pc \
    cmake/xtcp/xtcp-config.cmake cmake/xtcp/xtcp-config-version.cmake; do
    [ -e "$stage/$lib/$file" ] || { echo "no $file"; return 1; }
  done
  for file in LICENSE README.md compatibility.md examples/echo_server.cc; do
    [ -s "$stage/usr/share/doc/xtcp/$file" ] || { echo "no $file"; return 1; }
  done
  ! grep -rnE '@[A-Z]+@' "$stage/$lib/pkgconfig" "$stage/$lib/cmake"
}
step "everything is there" tree

moved() {
  run_make install DESTDIR="$scratch/with space" PREFIX=/opt/x INCLUDEDIR=/opt/y/include LIBDIR=/opt/z/lib64 &&
    [ -e "$scratch/with space/opt/y/include/xtcp/xtcp.h" ] && [ -e "$scratch/with space/opt/z/lib64/pkgconfig/xtcp.pc" ] &&
    grep -qx 'includedir=/opt/y/include' "$scratch/with space/opt/z/lib64/pkgconfig/xtcp.pc" &&
    run_make uninstall DESTDIR="$scratch/with space" PREFIX=/opt/x INCLUDEDIR=/opt/y/include LIBDIR=/opt/z/lib64 &&
    ! find "$scratch/with space" ! -type d | grep .
}
step "DESTDIR, INCLUDEDIR and LIBDIR elsewhere, and uninstall" moved

# --- Programs. -----------------------------------------------------------------------------------

export PKG_CONFIG_PATH=$stage/$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$stage LD_LIBRARY_PATH=$stage/$lib

links_shared() { readelf -d "$1" | grep -q 'NEEDED.*libxtcp\.so\.0'; }
links_no_shared() { ! links_shared "$1"; }
programs() {  # what, folder with the programs shared, static and spdlog, what shared is
  step "$1: shared" "$2/shared"
  step "$1: shared is ${3:-shared}" "links_${3:-shared}" "$2/shared"
  step "$1: static" "$2/static"
  step "$1: static is static" links_no_shared "$2/static"
  step "$1: spdlog" "$2/spdlog"
}

if ! missing pkg-config; then
  mkdir "$scratch/makefile"
  for program in shared static spdlog; do
    step "pkg-config: build $program" run_make -C "$scratch/makefile" -f "$consumer/Makefile" SOURCE="$consumer" $program
  done
  programs pkg-config "$scratch/makefile"
fi

with_cmake() {  # name, what `shared` is, arguments...
  local name=$1 kind=$2
  shift 2
  step "cmake $name: configure" cmake -S "$consumer/$name" -B "$scratch/$name" -DCMAKE_BUILD_TYPE=Release "$@"
  step "cmake $name: build" cmake --build "$scratch/$name" --parallel 2
  programs "cmake $name" "$scratch/$name" $kind
}
if ! missing cmake; then
  with_cmake find_package shared -DCMAKE_PREFIX_PATH="$stage/usr;$stage/$lib/cmake/xtcp"
  step "cmake find_package: a plug-in" ${CXX:-g++} -std=c++20 test/install/load_plugin.cc -pthread -ldl -o "$scratch/load"
  step "cmake find_package: it runs" "$scratch/load" "$scratch/find_package/libplugin.so" 10
  with_cmake add_subdirectory no_shared -DXTCP_SOURCE="$source"
  with_cmake add_subdirectory shared -DXTCP_SOURCE="$source" -DBUILD_SHARED_LIBS=ON
  with_cmake fetch_content no_shared -DXTCP_TARBALL="$tarball"
fi

if ! missing meson ninja; then
  step "meson: configure" meson setup "$scratch/meson" "$consumer"
  step "meson: build" meson compile -C "$scratch/meson"
  programs meson "$scratch/meson"
fi

# --- The tarball, and the sources. ---------------------------------------------------------------

unset PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
from_tarball() {  # folder, arguments of make
  mkdir -p "$scratch/$1/source" && tar -xzf "$tarball" -C "$scratch/$1/source" --strip-components=1 &&
    shift && run_make "$@"
}
step "the tarball builds alone" from_tarball one -C "$scratch/one/source" all
# From sources that nobody writes to, into another folder.
out_of_tree() {
  from_tarball two/deeper -C "$scratch/two/deeper/source" BUILD="$scratch/two/build" all &&
    ! find "$scratch/two/deeper/source" -newer "$scratch/stamp" -type f -o -name build | grep .
}
touch "$scratch/stamp"
step "out of the tree, from sources that stay as they are" out_of_tree
same() {
  local file
  for file in libxtcp.a libxtcp_pic.a libxtcp.so; do
    cmp "$scratch/one/source/build/release/$file" "$scratch/two/build/release/$file" || return
  done
}
step "two builds in two folders are the same" same

lean() {
  local needed
  for program in echo_server echo_client; do
    needed=$(readelf -d "${BUILD:-build}/release/demo/$program" | grep NEEDED) || return
    ! grep -E 'spdlog|fmt|protobuf' <<<"$needed" || return
  done
}
run_make programs-demo >"$log" 2>&1 || cat "$log"
step "echo_server links neither spdlog nor protobuf" lean

step "uninstall" run_make uninstall DESTDIR="$stage" "${folders[@]}"
empty() { ! find "$stage" ! -type d | grep . && ! find "$stage" -name xtcp | grep .; }
step "nothing is left" empty

echo "$((checks - failures)) passed, $failures failed"
[ $failures = 0 ]
