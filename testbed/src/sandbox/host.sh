# One sandbox host, from its first namespace to its last folder. Runs as root.
# Stdin is the lifeline: the first process inside the host reads it, and ends when its other end is gone. The host has
# a PID namespace, so with its first process everything that ever ran in it is killed, and nothing else.
# In: ID, NAME, STATE (folder of this host), DATA (the engine's folder), LAN, INDEX, ADDRESS, MAC, INSIDE (script).
# Out: one line, "ready PID" with a process inside the host, as the machine numbers it.
set -u
trap '' HUP INT QUIT TERM PIPE
exec 8>"$STATE/lock.new" && flock -n 8 && mv "$STATE/lock.new" "$STATE/lock" || exit 1 # see sweep.sh
exec 9>"$DATA.lock"
flock -w 60 9 || { echo "the engine folder $DATA is in use by another sandbox host" >&2; rm -rf "$STATE"; exit 1; }

remove() {
  ip -n "$LAN" link delete "p$INDEX"
  ip netns delete "tt-$ID"
  find /sys/fs/cgroup -mindepth 1 -depth -type d -path "*/tt-$ID*" -exec rmdir {} +
  rm -rf "$STATE"
} 2>/dev/null

make() {
  ip netns add "tt-$ID" &&
    ip -n "$LAN" link add "p$INDEX" type veth peer name eth0 netns "tt-$ID" &&
    ip -n "$LAN" link set "p$INDEX" master lan up &&
    ip -n "tt-$ID" link set lo up &&
    ip -n "tt-$ID" link set eth0 address "$MAC" &&
    ip -n "tt-$ID" address add "$ADDRESS/24" dev eth0 &&
    ip -n "tt-$ID" link set eth0 up
}

if make; then
  setpriv --pdeathsig KILL nsenter --net="/run/netns/tt-$ID" \
    unshare --mount --propagation private --pid --fork --kill-child --uts --ipc bash -c "$INSIDE" 8>&- 9>&-
fi
remove
