# Installs packages ($@, may be none) as root. SOURCE: what makes the newer suite available, or nothing.
set -e
export DEBIAN_FRONTEND=noninteractive
if [ -n "$SOURCE" ]; then
  printf '%s' "$SOURCE" >/etc/apt/sources.list.d/tasktracker-newer.sources
  printf 'Package: *\nPin: release n=trixie\nPin-Priority: 100\n' >/etc/apt/preferences.d/tasktracker-newer
fi
apt() { apt-get -q -o DPkg::Lock::Timeout=600 "$@"; }
apt update
[ $# -gt 0 ] || exit 0
if [ ! -e /usr/sbin/policy-rc.d ]; then # nothing new may start
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt install -y --no-install-recommends "$@"
[ -d /run/systemd/system ] || exit 0
for package in "$@"; do
  case $package in
  docker.io) systemctl disable -q docker.service docker.socket containerd.service ;;
  docker-registry) systemctl disable -q docker-registry.service ;;
  prometheus-alertmanager/*) systemctl disable -q prometheus-alertmanager.service ;;
  postgresql) systemctl disable -q postgresql.service ;;
  openssh-server) systemctl disable -q ssh.service ssh.socket ;;
  esac
done || true
