# An image of a program of Prometheus' project: the upstream image's paths, user and entrypoint.
# $1: tree of unpacked packages, $2: folder of the programs, $3: empty folder to fill, $4: tag, then: docker and its arguments
set -euo pipefail
tree=$1 built=$2 root=$3 tag=$4
shift 4

chmod 755 "$root"
mkdir -p "$root"/{bin,etc/ssl/certs,tmp}
chmod 1777 "$root/tmp"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnobody:x:65534:\n' >"$root/etc/group"

busybox=$(find "$tree" -type f -path '*bin/busybox')
cp "$busybox" "$root/bin/busybox"
for applet in awk cat df id ls ps sh sleep wget; do
  ln -s busybox "$root/bin/$applet"
done

case $tag in
prom/prometheus:*) programs="prometheus promtool" data=prometheus port=9090 entrypoint=prometheus ;;
prom/alertmanager:*) programs="prometheus-alertmanager amtool" data=alertmanager port=9093 entrypoint=alertmanager ;;
prom/node-exporter:*) programs=prometheus-node-exporter data= port=9100 entrypoint=node_exporter ;;
prom/blackbox-exporter:*) programs=prometheus-blackbox-exporter data= port=9115 entrypoint=blackbox_exporter ;;
esac
for program in $programs; do
  cp "$built/$program" "$root/bin/"
done
case $entrypoint in
alertmanager)
  ln -s prometheus-alertmanager "$root/bin/alertmanager"
  # Debian keeps the texts of notifications apart from the program.
  mkdir -p "$root/usr/share/prometheus"
  cp -r "$tree/usr/share/prometheus/alertmanager" "$root/usr/share/prometheus/"
  ;;
node_exporter | blackbox_exporter) ln -s "$programs" "$root/bin/$entrypoint" ;;
esac
if [ -n "$data" ]; then
  mkdir "$root/$data"
  chown 65534:65534 "$root/$data"
fi

# The loader where the programs expect it, with the libraries that it finds by itself.
loader=$(find "$tree" -type f -name 'ld-linux*.so*')
libraries=$(dirname "$(find "$tree" -name libc.so.6)")
for program in $programs; do
  "$loader" --library-path "$libraries" --list "$root/bin/$program" 2>/dev/null | awk '$3 ~ /^\// { print $1, $3 }' || true
done | sort -u | while read -r name file; do
  case $name in
  /*) install -D "$file" "$root$name" ;;
  *) install -D -m 644 "$file" "$root/lib/$name" ;;
  esac
done

tar -C "$root" --numeric-owner --sort=name --mtime=@0 -c . | "$@" import \
  --change "ENTRYPOINT [\"/bin/$entrypoint\"]" --change 'USER 65534' --change "EXPOSE $port" - "$tag"
