# Holds the host's lock until the end of standard input: the lock ends with the connection, at the latest after an hour.
# $1: the operator's folder.
# Exit 75: another writer holds the lock, or a program of one still runs; 73: the lock cannot be opened.
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
exec 9>&-
echo held
exec timeout 3600 cat >/dev/null
