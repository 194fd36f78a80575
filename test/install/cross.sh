#!/bin/bash
# Builds for other processors, and runs there, under qemu's user mode, the test program `unit` and an
# echo of which every byte is checked: test/install/cross.sh [TARGET]... Started by `make test-cross`.
# A target without its compiler or its qemu is skipped. Without TARGET the library is also compiled, no
# more, for riscv64, for i386, and with libc++.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
top=${BUILD:-build}/cross
mkdir -p "$top" || exit 1
passed=0
failed=0

verdict() {  # name, status, log
  if [ "$2" = 0 ]; then
    passed=$((passed + 1))
    echo "ok    $1"
  else
    failed=$((failed + 1))
    echo "FAIL  $1 (exit status $2)"
    tail -n 40 "$3"
  fi
}

# A million bytes of lines go through echo_server, and come back as they were.
echo_bytes() {  # qemu..., as an array `run`
  local port tries server status
  "${run[@]}" "$build/release/demo/echo_server" 127.0.0.1:0 >"$build/server" 2>&1 &
  server=$!
  # It does not say which port it got, so /proc does.
  for ((tries = 0; tries < 500; tries++)); do
    port=$(ss -Hltnp 2>/dev/null | sed -nE "s/.*127\.0\.0\.1:([0-9]+) .*pid=$server,.*/\1/p")
    [ -z "$port" ] || break
    read -rt 0.02 <> <(:)
  done
  head -c 750000 /dev/urandom | base64 >"$build/sent"
  timeout 120 "${run[@]}" "$build/release/demo/echo_client" "127.0.0.1:$port" <"$build/sent" >"$build/received"
  status=$?
  kill -TERM $server
  wait $server || status=$?
  cmp "$build/sent" "$build/received" && return $status
}

compiled_only=()
if [ $# = 0 ]; then
  set -- aarch64-linux-gnu arm-linux-gnueabihf s390x-linux-gnu
  compiled_only=(riscv64-linux-gnu-g++ i686-linux-gnu-g++ 'clang++ -stdlib=libc++')
fi
one=$(taskset -cp $$ | sed -E 's/.*: //; s/[-,].*//')  # of the processors that are ours
for target; do
  processor=${target%%-*}
  qemu=$(command -v "qemu-$processor-static" "qemu-$processor" | head -n 1)
  if ! command -v "$target-g++" >/dev/null || [ -z "$qemu" ]; then
    echo "skip  $target: no $target-g++ or no qemu-$processor here: make cross-deps"
    continue
  fi
  build=$top/$target
  mkdir -p "$build"
  log=$build/log
  run=("$qemu" -L "/usr/$target")
  # On x86-64, qemu 7.2 lets a load-acquire of aarch64 overtake an earlier store-release, which that
  # processor never does, and wake-ups are lost. On one processor of ours nobody sees the difference.
  if [ "$processor" = aarch64 ]; then run=(taskset -c "$one" "${run[@]}"); fi
  goals=(all "$build/release/demo/echo_server" "$build/release/demo/echo_client")
  # Catch2 2 is a header; of version 3 there is a library, which is not this processor's.
  if [ -e /usr/include/catch2/catch.hpp ]; then
    goals+=("$build/plain/test/unit")
    printf '#define CATCH_CONFIG_MAIN\n#include <catch2/catch.hpp>\n' |
      "$target-g++" -std=c++20 -O0 -w -Wno-psabi -x c++ -c - -o "$build/catch_main.o"
  else
    echo "skip  $target unit: Catch2 3 has no library for it here"
  fi
  env -u MAKEFLAGS -u MAKELEVEL make BUILD="$build" CXX="$target-g++" AR="$target-ar" STRICT="$STRICT" \
    JOBS="${JOBS:-2}" SPDLOG_CFLAGS= SPDLOG_LIBS= CATCH_LIBS="$build/catch_main.o" "${goals[@]}" >"$log" 2>&1
  verdict "$target builds" $? "$log"
  echo_bytes >"$log" 2>&1
  verdict "$target echo" $? "$log"
  if [ ${#goals[@]} = 4 ]; then
    timeout 900 "${run[@]}" "$build/plain/test/unit" >"$log" 2>&1
    status=$?  # the commands in the name of the verdict have one of their own
    verdict "$target unit: $(tail -n 2 "$log" | head -n 1)" $status "$log"
  fi
done

for compiler in "${compiled_only[@]}"; do
  check="$compiler -std=c++20 -pthread -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-psabi -Werror"
  if ! $check -include version -x c++ /dev/null 2>/dev/null; then
    echo "skip  $compiler: it is not here: make cross-deps"
    continue
  fi
  find lib -name '*.cc' -print0 | xargs -0 -n 1 -P "${JOBS:-2}" $check -Iinclude -Ilib >"$top/log" 2>&1
  verdict "$compiler compiles the library" $? "$top/log"
done
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
