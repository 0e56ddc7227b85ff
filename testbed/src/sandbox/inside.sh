# The first process of a sandbox host: gives it file systems of its own, then waits for the end of stdin.
# What the machine has in /usr is the host's system; what a server writes to is the host's own.
set -e
read -r pid _ </proc/self/stat # before /proc is ours: the number the machine knows
mount -t proc proc /proc
echo "$NAME" >/proc/sys/kernel/hostname
mount --make-rshared / # as systemd has it: containers may ask to see what is mounted later
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 700 /run/tasktracker
mkdir -m 755 /run/sshd
mount --bind "$STATE" /run/tasktracker
for folder in etc var/lib; do
  upper=/run/tasktracker/upper/$folder work=/run/tasktracker/work/$folder
  mkdir -p "$work"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$upper,workdir=$work" "/$folder"
done
rm -rf /etc/docker # the settings and the identity of an engine that the machine may have
mount --bind "$DATA" /var/lib/docker
# Containers of an earlier run do not start again, and the ports they had are nobody's.
find /var/lib/docker/containers -name hostconfig.json -exec \
  sed -i 's/"RestartPolicy":{"Name":"[a-z-]*"/"RestartPolicy":{"Name":"no"/' {} + 2>/dev/null || true
rm -rf /var/lib/docker/network/files
[ -z "$COMPOSE" ] || install -D -m 755 "$COMPOSE" /run/tasktracker/own/usr/local/lib/docker/cli-plugins/docker-compose
for folder in sbin bin; do
  [ -z "$ENGINE" ] || mount --bind "$ENGINE/$folder" "/run/tasktracker/own/usr/local/$folder"
done
[ -z "$DISK" ] || mount -t tmpfs -o "size=${DISK}m,mode=755,uid=$DEPLOY,gid=$DEPLOY" tmpfs /run/tasktracker/own/opt/tasktracker
for folder in home opt root srv tmp usr/local var/log; do
  mount --rbind "/run/tasktracker/own/$folder" "/$folder"
done
cd /
echo "ready $pid"
exec >/dev/null 2>&1
read -r _ || true
# A paused container could not be killed with this process.
for state in $(find /sys/fs/cgroup -path "*/tt-$ID*" -name freezer.state); do echo THAWED >"$state"; done
