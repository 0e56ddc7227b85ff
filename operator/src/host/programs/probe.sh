# Looks at what the operator needs on a host. Writes nothing.
# $1: the operator's folder; $2: the engine's. Prints lines "key value".
for tool in base64 cat cp env find flock head mkdir mktemp mv rm rmdir sed setsid sha256sum sort stat sync tail timeout tr; do
  command -v "$tool" >/dev/null 2>&1 || printf 'missing %s\n' "$tool"
done
printf 'user %s\n' "$(id -un 2>/dev/null || id -u)"
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
fi
part=$1
while [ "$part" != / ] && [ -n "$part" ]; do
  if [ -L "$part" ]; then link=$part; fi
  part=${part%/*}
done
part=$1
while [ -n "$part" ] && [ ! -e "$part" ]; do part=${part%/*}; done
if [ -n "${link:-}" ]; then printf 'folder %s is a symbolic link\n' "$link"
elif [ ! -d "${part:-/}" ]; then printf 'folder %s is no folder\n' "$part"
elif [ ! -w "${part:-/}" ] || [ ! -x "${part:-/}" ]; then printf 'folder %s is not writable\n' "${part:-/}"
else printf 'folder ok\n'; fi
for place in "${part:-/}" "$2"; do
  [ -z "$place" ] || printf 'disk %s %s\n' "$(stat -f -c '%b %a %c %d' -- "$place" 2>/dev/null)" "$place"
done
printf 'forwarding %s\n' "$(cat /proc/sys/net/ipv4/ip_forward 2>/dev/null)"
printf 'seconds %s\n' "$(date +%s)"
