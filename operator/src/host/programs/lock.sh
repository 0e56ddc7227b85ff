# Holds the host's lock until the end of standard input: the lock ends with the connection.
# $1: the operator's folder.
# Exit 75: another writer holds the lock; 73: the lock cannot be opened.
umask 022
mkdir -p "$1" || exit 73
exec 9>>"$1/.lock" || exit 73
flock -w 60 9 || exit 75
echo held
while read -r _; do :; done
