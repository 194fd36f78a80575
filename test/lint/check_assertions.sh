#!/bin/bash
# Each XTCP_DCHECK has a text of its own, is seen to fire in test/unit/checks, and is not in the archive
# that ships.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
archive=${1:-${BUILD:-build}/release/libxtcp.a}
if [ ! -e "$archive" ]; then
  echo "$archive is missing: make"
  exit 1
fi
least=40
bad=0
complain() {
  echo "$1"
  bad=1
}

# The text is the last argument, maybe on a line of its own.
texts=$(find lib \( -name '*.h' -o -name '*.cc' \) -not -path lib/base/check.h -exec cat {} + | tr '\n' ' ' |
  grep -oE 'XTCP_DCHECK\([^"]*"[^"]*"\)' | sed -E 's/.*"([^"]*)"\)$/\1/' | sort)
count=$(grep -c . <<<"$texts")
uses=$(grep -rE --include='*.h' --include='*.cc' -h 'XTCP_DCHECK\(' lib | grep -vc '#define')
[ "$count" -ge $least ] || complain "there are $count debug checks, and were $least or more"
[ "$count" = "$uses" ] || complain "$uses debug checks have $count texts"
twice=$(uniq -d <<<"$texts")
[ -z "$twice" ] || complain "not only once: $twice"

while read -r text; do
  grep -qrF "\"$text\"" test/unit/checks || complain "no test in test/unit/checks fires '$text'"
done <<<"$texts"
shipped=$(grep -aoFf <(echo "$texts") "$archive" | sort -u)
[ -z "$shipped" ] || complain "$archive has these texts: $shipped"

exit $bad
