#!/bin/bash
# What ships is built with the protections that docs/compatibility.md names: the archive's members,
# and a program that was linked with the flags of the demo.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
archive=${1:-build/release/libxtcp.a}
program=${2:-build/release/demo/echo_server}
for file in "$archive" "$program"; do
  if [ ! -e "$file" ]; then
    echo "$file is missing: make all demo"
    exit 1
  fi
done
bad=0
fail() {
  echo "$1"
  bad=1
}

# Which checks the compiler put into the members shows in what they call.
calls=$(nm --undefined-only "$archive") || exit 1
grep -q ' __stack_chk_fail$' <<<"$calls" || fail "$archive: no stack protector"
grep -q '__glibcxx_assert_fail' <<<"$calls" || fail "$archive: no -D_GLIBCXX_ASSERTIONS"
grep -qE ' __[a-z]+_chk$' <<<"$calls" || fail "$archive: no -D_FORTIFY_SOURCE"

if [ "$(uname -m)" = x86_64 ]; then
  members=$(ar t "$archive" | wc -l)
  protected=$(readelf -nW "$archive" 2>/dev/null | grep -c 'x86 feature: IBT, SHSTK')
  [ "$members" = "$protected" ] ||
    fail "$archive: $protected of $members members have control-flow protection"
fi

header=$(readelf -hlW "$program") || exit 1
dynamic=$(readelf -dW "$program") || exit 1
grep -qE 'Type: +DYN' <<<"$header" || fail "$program: not position-independent"
grep -q 'GNU_RELRO' <<<"$header" || fail "$program: no RELRO"
grep -qE 'BIND_NOW|Flags:.* NOW' <<<"$dynamic" || fail "$program: RELRO is not full"
grep -qE 'GNU_STACK.* RW +0x' <<<"$header" || fail "$program: its stack is executable"

exit $bad
