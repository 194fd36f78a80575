#!/bin/bash
# Each public header compiles alone, under g++ and clang++ and strict warnings, and includes only
# standard headers and other public ones; spdlog_logger.h may include spdlog.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
. test/lint/make_by.sh
bad=0

headers=(include/xtcp/*.h include/xtcp/*/*.h)
if [ ! -e "${headers[0]}" ]; then
  echo "no headers in include/xtcp"
  exit 1
fi

for header in "${headers[@]}"; do
  while IFS=: read -r line text; do
    name=$(sed -E 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*//; s/[[:space:]]*(\/\/.*)?$//' <<<"$text")
    case $name in
      '<xtcp/'*'>')
        file=${name#<}
        [ -e "include/${file%>}" ] && continue ;;
      '<spdlog/'*'>')
        [ "$header" = include/xtcp/spdlog_logger.h ] && continue ;;
      *[!a-z_\<\>]*) ;;      # standard headers have neither a dot nor a slash
      '<'*'>') continue ;;
    esac
    echo "$header:$line: includes $name"
    bad=1
  done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' "$header")
done

make_by g++ headers-alone || bad=1
! command -v clang++ >/dev/null || make_by clang++ headers-alone || bad=1

if [ $bad = 0 ] && ! command -v clang++ >/dev/null; then
  echo "clang++ is not here; under g++ all is well"
  exit 77
fi
exit $bad
