#!/bin/bash
# Each public name has a comment, and the reference of `make docs` is made without a warning.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
if ! command -v doxygen >/dev/null; then
  echo "doxygen is not here"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
awk -f tools/examples_dox.awk demo/*.cc >"$folder/examples.dox"
export XTCP_DOCS=$folder XTCP_VERSION=0
{ cat docs/Doxyfile; printf '%s\n' GENERATE_XML=YES XML_PROGRAMLISTING=NO; } | doxygen - 2>&1 || exit 1

bad=0
# Of some kinds doxygen does not say that a comment is missing: enumerators, what is defaulted.
undocumented=$(awk -f test/lint/undocumented.awk "$folder"/xml/*.xml | sort -u)
[ -z "$undocumented" ] || { echo "without a comment:"; echo "$undocumented"; bad=1; }

# A name that doxygen passes over in silence would not be in the reference either.
for name in $(grep -hoE '^(class|struct) (XTCP_[A-Z]+ )?[A-Za-z]+|^enum class [A-Za-z]+|^XTCP_API [^(]*' include/xtcp/*.h include/xtcp/*/*.h |
  awk '{ print $NF }' | sort -u); do
  case $name in sockaddr) continue ;; esac
  grep -qrhE "(class|struct|enum class|namespacextcp)[^<]*.*\b$name\b" "$folder"/html/*.html ||
    { echo "the reference has no $name"; bad=1; }
done
[ -e "$folder/html/index.html" ] || { echo "no first page"; bad=1; }
exit $bad
