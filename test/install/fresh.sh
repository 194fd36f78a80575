#!/bin/bash
# Makes a fresh system and runs the README's two commands there, each in a clone of its own:
#
#   test/install/fresh.sh SUITE [GOAL]...     as root; SUITE is bookworm, trixie, sid, …
#
# The goals are `demo` and `test` unless they are named. The root is made with debootstrap and holds
# git, make and certificates, no more; nothing is added to its /etc. XTCP_MIRROR is Debian's mirror,
# XTCP_FRESH the folder where roots are kept (/var/tmp/xtcp-fresh): a root that is there already is
# used again as the beginning of another fresh one. CI and JOBS are handed on.
export LC_ALL=C
suite=$1
[ -n "$suite" ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
shift
[ $# != 0 ] || set -- demo test
cd "$(dirname "$0")/../.." || exit 1
[ "$(id -u)" = 0 ] || { echo "fresh: only root may make a root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "fresh: debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }

folder=${XTCP_FRESH:-/var/tmp/xtcp-fresh}
base=$folder/$suite.tar
mkdir -p "$folder" || exit 1
root=
leave() {
  [ -n "$root" ] || return
  umount -l "$root/dev/shm" "$root/dev" "$root/proc" 2>/dev/null
  mountpoint -q "$root/dev" || mountpoint -q "$root/proc" || rm -rf --one-file-system "$root"
  root=
}
trap leave EXIT
trap 'exit 1' INT TERM HUP

if [ ! -e "$base" ]; then
  echo "fresh: makes a root of $suite"
  root=$folder/$suite.new
  debootstrap --variant=minbase --include=git,make,ca-certificates "$suite" "$root" \
    "${XTCP_MIRROR:-http://deb.debian.org/debian}" >"$folder/$suite.log" 2>&1 ||
    { tail -n 20 "$folder/$suite.log" >&2; exit 1; }
  tar -C "$root" --one-file-system -cf "$base.part" . && mv "$base.part" "$base" || exit 1
  leave
fi

status=0
for goal; do
  root=$(mktemp -d "$folder/$suite-$goal.XXXX") || exit 1
  tar -C "$root" -xf "$base" || exit 1
  chmod 755 "$root"
  mount -t proc proc "$root/proc" && mount --bind /dev "$root/dev" &&
    { mountpoint -q "$root/dev/shm" || mount -t tmpfs tmpfs "$root/dev/shm"; } || exit 1
  git clone -q . "$root/root/xtcp" || exit 1
  echo "fresh: $suite: make deps $goal"
  chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb ${CI:+CI=$CI} ${JOBS:+JOBS=$JOBS} \
    bash -c "cd /root/xtcp && make deps $goal" </dev/null || status=1
  leave
done
[ $status = 0 ] && echo "fresh: $suite: all is well"
exit $status
