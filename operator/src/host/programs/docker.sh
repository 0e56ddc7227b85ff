# Runs one docker command under the host's lock.
# $1: the operator's folder; $2: time limit in seconds; the rest: arguments of docker.
# Exit 75: another writer holds the lock.
lock=$1/.lock limit=$2
shift 2
exec 9>>"$lock" || exit 73
flock -w 60 9 || exit 75
cd / || exit 73
exec timeout -k 10 "$limit" env -i PATH="$PATH" HOME="$HOME" DOCKER_CONFIG="${DOCKER_CONFIG:-$HOME/.docker}" docker "$@" </dev/null 9>&-
