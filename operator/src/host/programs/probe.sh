# Looks at what the operator needs on a host. Writes nothing.
# $1: the operator's folder; $2: the engine's. Prints lines "key value".
for tool in base64 cat cp env find flock head mkdir mktemp mv rm rmdir sed setsid sha256sum sort stat sync tail timeout tr; do
  command -v "$tool" >/dev/null 2>&1 || printf 'missing %s\n' "$tool"
done
printf 'user %s\n' "$(id -un 2>/dev/null || id -u)"
printf 'uid %s\n' "$(id -u)"
printf 'gid %s\n' "$(id -g)"
socket=/var/run/docker.sock
if command -v docker >/dev/null 2>&1; then
  printf 'docker present\n'
  printf 'compose %s\n' "$(timeout 15 docker compose version --short 2>/dev/null)"
fi
if [ -S "$socket" ]; then
  if [ -r "$socket" ] && [ -w "$socket" ]; then
    printf 'socket open\n'
    printf 'api %s\n' "$(timeout 15 docker -H "unix://$socket" version --format '{{.Server.APIVersion}} {{.Server.Version}}' 2>/dev/null)"
  else
    printf 'socket denied\n'
  fi
else
  printf 'socket absent\n'
  other=${DOCKER_HOST:-$(timeout 15 docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null)}
  if [ "$other" != "unix://$socket" ] && timeout 15 docker version >/dev/null 2>&1; then
    printf 'elsewhere %s\n' "$other"
  fi
fi
# A link on the way to the folder leads to what root chose, where nobody else could have made it or could replace it.
of_root() { # $1: the folder of a link
  case $(stat -c '%u %a' -- "$1" 2>/dev/null) in "0 "*[2367]?|"0 "*[2367]) return 1 ;; "0 "*) return 0 ;; *) return 1 ;; esac
}
trusted() { # $1: a link
  above=${1%/*}
  [ "$(stat -c %u -- "$1" 2>/dev/null)" = 0 ] && of_root "${above:-/}"
}
link= part=$1
while [ "$part" != / ] && [ -n "$part" ]; do
  if [ -L "$part" ] && ! trusted "$part"; then link=$part; fi
  part=${part%/*}
done
part=$1
while [ -n "$part" ] && [ ! -e "$part" ]; do part=${part%/*}; done
if [ -n "$link" ]; then printf 'folder %s is a symbolic link that others than root can replace\n' "$link"
elif [ ! -d "${part:-/}" ]; then printf 'folder %s is no folder\n' "$part"
elif [ ! -w "${part:-/}" ] || [ ! -x "${part:-/}" ]; then printf 'folder %s is not writable\n' "${part:-/}"
else printf 'folder ok\n'; fi
real=$(readlink -f -- "${part:-/}" 2>/dev/null)
[ -z "$real" ] || printf 'real %s%s\n' "${real%/}" "${1#"$part"}"
for place in "${part:-/}" "$2"; do
  [ -z "$place" ] || printf 'disk %s %s\n' "$(stat -f -c '%b %a %c %d' -- "$place" 2>/dev/null)" "$place"
done
# What the daemon gives every container by itself: its arguments, a line each, and its file.
file=/etc/docker/daemon.json
read -r first 2>/dev/null </var/run/docker.pid || first=none
for process in "/proc/$first" /proc/[0-9]*; do
  read -r name 2>/dev/null <"$process/comm" || continue
  [ "$name" = dockerd ] || continue
  words=$(tr '\0' '\n' 2>/dev/null <"$process/cmdline" | sed 's/^/dockerd /')
  printf '%s\n' "$words"
  named=$(printf '%s\n' "$words" | sed -n 's/^dockerd --config-file=//p; /^dockerd --config-file$/{n;s/^dockerd //p;}')
  file=${named:-$file}
  break
done
[ ! -r "$file" ] || printf 'daemon %s\n' "$(head -c 65536 -- "$file" | tr -s '\n\t ' '   ')"
printf 'memory %s\n' "$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo 2>/dev/null)"
printf 'unused %s\n' "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo 2>/dev/null)"
printf 'forwarding %s\n' "$(cat /proc/sys/net/ipv4/ip_forward 2>/dev/null)"
printf 'seconds %s\n' "$(date +%s)"
