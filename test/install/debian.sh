#!/bin/bash
# Builds Debian packages from the tarball, in two folders, with all hardening flags, and asks lintian:
# test/install/debian.sh TARBALL [FOLDER-FOR-THE-PACKAGES]. Started by `make debcheck`.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
tarball=$(realpath "$1") || exit 1
version=$(basename "$tarball" .tar.gz)
version=${version#xtcp-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

package() {  # folder, how many jobs
  local at=$scratch/$1
  mkdir -p "$at" && cp "$tarball" "$at/xtcp_$version.orig.tar.gz" && tar -xzf "$tarball" -C "$at" &&
    cp -r test/install/debian "$at/xtcp-$version/debian" &&
    sed 's/^$/./; s/^/ /' LICENSE >"$at/licence" &&
    sed -i -e "/^@LICENSE@/{r $at/licence
d}" "$at/xtcp-$version/debian/copyright" &&
    (cd "$at/xtcp-$version" && env -u MAKEFLAGS -u MAKELEVEL DEB_BUILD_OPTIONS="parallel=$2" \
      dpkg-buildpackage -us -uc -d >"$at/log" 2>&1) && return
  tail -n 40 "$at/log"
  echo "debian: the package does not build"
  exit 1
}
package one 2
package another/and/longer 1

bad=0
# As many jobs as were asked for, and no more.
grep -q -- 'make -j2' "$scratch/one/log" || { echo "debian: parallel=2 does not reach make"; bad=1; }
for deb in "$scratch"/one/*.deb; do
  cmp "$deb" "$scratch/another/and/longer/$(basename "$deb")" || { echo "debian: not reproducible"; bad=1; }
done
warnings=$(grep -E ': warning: ' "$scratch/one/log" | sort -u)
[ -z "$warnings" ] || { echo "$warnings"; bad=1; }
# Tags of an upload to the archive, which this is not: a bug to close, a home page, a symbols file.
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$scratch"/one/*.changes || bad=1
[ -z "$2" ] || cp "$scratch"/one/*.deb "$2"
[ $bad = 0 ] && echo "debian: $(cd "$scratch/one" && echo *.deb | tr ' ' ',') build alike in two folders, and lintian accepts them"
exit $bad
