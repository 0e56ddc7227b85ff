# The network of one process's sandbox hosts: a bridge in a namespace of its own and one cable to the machine.
# Runs as root. Stdin is the lifeline: when its other end is gone, everything made here is removed.
# In: STATE (folder of this network), LOCKS (folder of lock files). Out: one line, "ready N" for 10.213.N.0/24.
set -u
trap '' HUP INT QUIT TERM PIPE
exec 8>"$STATE/lock.new" && flock -n 8 && mv "$STATE/lock.new" "$STATE/lock" || exit 1 # see sweep.sh

remove() {
  ip link delete "tt$1"
  ip netns delete "tt-lan-$1"
} 2>/dev/null

# The lock of a network lives as long as this script, so what still carries its name belongs to nobody.
take() {
  exec 9>"$LOCKS/network-$1.lock" && flock -n 9 || return 1
  remove "$1"
  [ -z "$(ip -4 route show root "10.213.$1.0/24")" ]
}

make() {
  ip netns add "tt-lan-$1" &&
    ip -n "tt-lan-$1" link add lan type bridge &&
    ip -n "tt-lan-$1" link set lan up &&
    ip link add "tt$1" type veth peer name machine netns "tt-lan-$1" &&
    ip -n "tt-lan-$1" link set machine master lan up &&
    ip address add "10.213.$1.1/24" dev "tt$1" &&
    ip link set "tt$1" up
}

number=
for candidate in $(seq 1 254); do
  take "$candidate" && number=$candidate && break
done
[ -n "$number" ] || { echo "all networks in 10.213.0.0/16 are taken" >&2; exit 1; }
if make "$number"; then
  echo "ready $number"
  read -r _
fi
remove "$number"
rm -rf "$STATE"
