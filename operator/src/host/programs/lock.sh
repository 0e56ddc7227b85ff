# Holds the host's lock until the end of standard input, or until nothing came for half a minute: whoever stops
# without an end, or is cut off, keeps nobody else waiting for long.
# $1: the operator's folder; $2: who asks for it.
# A reserve on the disk is given up where the disk is full, so that there is room for what repairs containers; who ends
# its tenure on a disk with room makes it again.
# Prints "held EPOCH WRITER": the number of this tenure, and who had the one before.
# Exit 75: another writer holds the lock, or a program of one still runs; 73: the lock cannot be opened or written.
umask 022
mkdir -p "$1" || exit 73
(: >>"$1/.lock" && : >>"$1/.writing") || exit 73
exec 8>>"$1/.lock" 9>>"$1/.writing"
tries=0
until flock -n 8 && flock -n 9; do
  tries=$((tries + 1))
  [ "$tries" -lt 60 ] || exit 75
  sleep 1
done
reserve=$1/.reserve size=262144
has_room() { # $1: a folder; $2: bytes. Also where nobody can say
  set -- "$2" $(stat -f -c '%a %S' "$1" 2>/dev/null)
  [ "$#" -lt 3 ] || [ "$(($2 * $3))" -ge "$1" ]
}
has_room "$1" "$size" || rm -f "$reserve"
number= before=
[ ! -f "$1/.epoch" ] || read -r number before <"$1/.epoch"
case $number in
  '' | *[!0-9]* | ?????????????????*) # what is lost is taken from the ledgers, which copy it
    before=
    number=$(sed -n 's/^ *"epoch": \([0-9]\{1,15\}\),*$/\1/p' "$1"/*/*/ledger.json 2>/dev/null | sort -n | tail -n 1)
    ;;
esac
number=$((${number:-0} + 1))
# `cat` tells why it cannot write, which not every shell does.
printf '%s %s\n' "$number" "$2" | cat >"$1/.epoch.new" && sync "$1/.epoch.new" && mv -T -f "$1/.epoch.new" "$1/.epoch" || exit 73
exec 9>&-
echo "held $number $before"
while [ -n "$(timeout 30 head -c 1)" ]; do :; done
# No zeros: some file systems keep none.
[ -s "$reserve" ] || ! has_room "$1" "$((size * 4))" ||
  { head -c "$size" /dev/urandom >"$reserve.new" && mv -T -f "$reserve.new" "$reserve"; } 2>/dev/null || rm -f "$reserve.new"
