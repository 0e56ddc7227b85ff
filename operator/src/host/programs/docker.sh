# Runs one docker command; whoever calls holds the host's lock.
# $1: time limit in seconds; the rest: arguments of docker.
limit=$1
shift
cd / || exit 73
exec timeout -k 10 "$limit" env -i PATH="$PATH" HOME="$HOME" DOCKER_CONFIG="${DOCKER_CONFIG:-$HOME/.docker}" docker "$@" </dev/null
