#!/bin/bash
# The release archive, and the programs linked with it, have what the flags of the Makefile promise
# ([X8] of the guarantees): read from the files themselves, and from the command only where a file
# does not tell.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
archive=${1:-$build/release/libxtcp.a}
if [ ! -e "$archive" ]; then
  echo "$archive is missing: make"
  exit 1
fi
bad=0
complain() {
  echo "$1"
  bad=1
}

# --- Each member of the archive. -----------------------------------------------------------------

members=$(ar t "$archive" | sort)
[ -n "$members" ] || complain "$archive is empty"

# Protection of branches and returns: a program has it only if each of its objects does. Not every
# processor has one.
machine=$(readelf -hW "$archive" | sed -n 's/^ *Machine: *//p' | sort -u)
case $machine in
  *X86-64 | *80386) property='x86 feature: IBT, SHSTK' ;;
  AArch64) property='AArch64 feature: BTI, PAC' ;;
  *) property= ;;
esac
if [ -n "$property" ]; then
  protected=$(readelf -nW "$archive" | awk -v property="$property" '
    /^File: / { file = $2; sub(/.*\(/, "", file); sub(/\)$/, "", file) }
    index($0, property) { print file }' | sort)
  missing=$(comm -23 <(echo "$members") <(echo "$protected"))
  [ -z "$missing" ] || complain "without the property '$property': $missing"
fi

# One object without this section, or with a flag X on it, gives the program an executable stack.
quiet=$(readelf -SW "$archive" | awk '
  /^File: / { file = $2; sub(/.*\(/, "", file); sub(/\)$/, "", file) }
  /\.note\.GNU-stack/ { sub(/.*\.note\.GNU-stack +/, ""); if ($6 !~ /X/) print file }' | sort)
missing=$(comm -23 <(echo "$members") <(echo "$quiet"))
[ -z "$missing" ] || complain "asks for an executable stack: $missing"

# An absolute address of 32 bits in code or data cannot go into a position-independent program.
absolute=$(readelf -rW "$archive" | awk '
  /^File: / { file = $2; sub(/.*\(/, "", file); sub(/\)$/, "", file) }
  /^Relocation section/ { loaded = $0 !~ /\.rela\.debug/ }
  loaded && $3 ~ /^R_X86_64_32S?$/ { print file }' | sort -u)
[ -z "$absolute" ] || complain "not position-independent: $absolute"

# --- What they call. -----------------------------------------------------------------------------

# Where a member calls it: its name and the symbol.
uses=$(nm -A --undefined-only "$archive" | sed -E 's/^[^:]*:([^:]*):.* U /\1 /')
# `Now` has a structure whose address it gives away, and no array: -fstack-protector-strong.
grep -qx 'syscalls.o __stack_chk_fail' <<<"$uses" || complain "without -fstack-protector-strong"
grep -qE '^log\.o __v?snprintf_chk$' <<<"$uses" || complain "without _FORTIFY_SOURCE"
grep -qE ' _ZSt21__glibcxx_assert_fail' <<<"$uses" || complain "without _GLIBCXX_ASSERTIONS"

# Which level of _FORTIFY_SOURCE, no object tells. The last one on a command line counts.
command=$(env -u MAKEFLAGS -u MAKELEVEL make -Bn V=1 "$build/release/obj/lib/base/log.o" | grep -e ' -c ')
level=$(grep -oE -e '-[DU]_FORTIFY_SOURCE[=0-9]*' <<<"$command" | tail -1)
[ "$level" = -D_FORTIFY_SOURCE=3 ] || complain "compiled with '$level', not -D_FORTIFY_SOURCE=3"

# --- Programs. -----------------------------------------------------------------------------------

programs=$(find "$build/release/demo" "$build/plain/test" -maxdepth 1 -type f -perm -u+x 2>/dev/null | sort)
[ -n "$programs" ] || complain "no program is built: make programs-demo"
for program in $programs; do
  headers=$(readelf -hldW "$program") || { complain "$program is no program"; continue; }
  grep -qE '^ +Type: +DYN' <<<"$headers" && grep -qE '\(FLAGS_1\).*PIE' <<<"$headers" ||
    complain "$program: no position-independent executable"
  grep -qE '^ +GNU_RELRO ' <<<"$headers" || complain "$program: no RELRO"
  grep -qE '\(FLAGS_1\).*NOW|\(BIND_NOW\)|\(FLAGS\).*BIND_NOW' <<<"$headers" ||
    complain "$program: binds late, so that RELRO is not full"
  grep -qE '^ +GNU_STACK .* RW +0x' <<<"$headers" || complain "$program: executable stack"
  grep -qE '^ +LOAD .* RWE +0x' <<<"$headers" && complain "$program: writable code"
  grep -q '(TEXTREL)' <<<"$headers" && complain "$program: relocations in its code"
done

exit $bad
