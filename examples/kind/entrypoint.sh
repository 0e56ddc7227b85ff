#!/bin/bash
# What the operator asks of a host: an SSH server, a Docker daemon, and a folder that belongs to the user.
set -euo pipefail

key=/etc/ssh/keys/ssh_host_ed25519_key

# A group of processes that is the root of what can be seen here hands its controllers on only once it is empty. In a
# privileged pod it is not the root, and nothing is to be done.
groups=/sys/fs/cgroup
if [ -e "$groups/cgroup.controllers" ] && [ "$(cat /proc/self/cgroup)" = '0::/' ]; then
  mkdir -p "$groups/host"
  while read -r process; do
    echo "$process" >"$groups/host/cgroup.procs" || true
  done <"$groups/cgroup.procs"
  read -r -a controllers <"$groups/cgroup.controllers"
  for controller in "${controllers[@]}"; do
    echo "+$controller" >"$groups/cgroup.subtree_control" || true
  done
fi

install -d -m 755 /run/sshd /etc/ssh/keys
install -d -m 755 -o deploy -g deploy /opt/tasktracker
install -d -m 700 -o deploy -g deploy /home/deploy/.ssh
install -m 600 -o deploy -g deploy /etc/ssh/users/authorized_keys /home/deploy/.ssh/authorized_keys
[ -e "$key" ] || ssh-keygen -q -t ed25519 -N '' -C '' -f "$key"

# Networks that are neither the cluster's nor those that Docker takes by itself, which may be the machine's.
dockerd --bip=10.201.0.1/24 --default-address-pool=base=10.202.0.0/16,size=24 &
engine=$!
until docker version >/dev/null 2>&1; do
  kill -0 "$engine"
  sleep 0.5
done
/usr/sbin/sshd -D -e &
server=$!

# Where one of the two ends, or the container is to end, both do.
end() { kill "$engine" "$server" 2>/dev/null || true; }
trap end TERM INT
wait -n || true
end
wait
