#!/bin/bash
# The shared library exports what lib/exports.txt lists, which is what has XTCP_API and nothing else,
# and the archives show the same. --write makes the list anew: look at what changes in it, since it
# is what programs may link to.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
list=lib/exports.txt
shared=$build/release/libxtcp.so
archives="$build/release/libxtcp.a $build/release/libxtcp_pic.a"
for file in "$shared" $archives; do
  if [ ! -e "$file" ]; then
    echo "$file is missing: make"
    exit 1
  fi
done
bad=0

exported() { nm -D --defined-only "$shared" | awk '{ print $3 }' | c++filt | sort -u; }

# What would be exported by a shared object that takes the archive in.
visible() {  # archive
  readelf -sW "$1" | awk '$5 != "LOCAL" && $6 == "DEFAULT" && $7 != "UND" { print $8 }' |
    grep -E '^_Z(NK?|T.N)4xtcp' | c++filt | sort -u
}

if [ "$1" = --write ]; then
  exported >$list
  exit
fi
if ! file_class=$(readelf -hW "$shared" | sed -n 's/^ *Class: *//p') || [ "$file_class" != ELF64 ]; then
  echo "$list names the types of a processor with 64 bits, and this has not"
  exit 77
fi
compare() {  # file, names
  local difference
  difference=$(diff $list - <<<"$2") && return
  echo "only in $list (<), and only in $1 (>); test/lint/check_exports.sh --write makes the list:"
  grep '^[<>]' <<<"$difference"
  bad=1
}
compare "$shared" "$(exported)"
for archive in $archives; do compare "$archive" "$(visible "$archive")"; done

# A public name that is declared and not exported would be missed by programs only, so each mark in
# the headers has a name in the list.
for name in $(grep -hoE '^(class|struct) XTCP_API [A-Za-z]+|^XTCP_API [^(]*' include/xtcp/*.h include/xtcp/*/*.h | awk '{ print $NF }'); do
  grep -qE "xtcp::$name(::|\(|\[)" $list || { echo "$name has XTCP_API and is not exported"; bad=1; }
done

# It needs nothing but the C and C++ libraries.
others=$(readelf -dW "$shared" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' |
  grep -vE '^(libstdc\+\+|libc\+\+|libc\+\+abi|libgcc_s|libc|libm|libpthread|libatomic|libunwind|ld-linux[a-z0-9-]*)\.so')
[ -z "$others" ] || { echo "$shared needs $others"; bad=1; }
exit $bad
