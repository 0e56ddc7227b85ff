# Runs one docker command. Whoever calls holds the host's lock; the second lock lasts as long as the command does,
# even where the caller is gone.
# $1: the operator's folder; $2: time limit in seconds; the rest: arguments of docker.
# Exit 75: a program of another writer still runs.
writing=$1/.writing limit=$2
shift 2
(: >>"$writing") || exit 73
exec 9>>"$writing"
# Whoever only looks holds it for a moment.
tries=0
until flock -n 9; do
  tries=$((tries + 1))
  [ "$tries" -lt 50 ] || exit 75
  sleep 0.1
done
cd / || exit 73
exec timeout -k 10 "$limit" env -i PATH="$PATH" HOME="$HOME" DOCKER_CONFIG="${DOCKER_CONFIG:-$HOME/.docker}" docker -H unix:///var/run/docker.sock "$@" </dev/null
