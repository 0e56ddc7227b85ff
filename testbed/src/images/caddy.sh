# The image of Caddy: the upstream image's paths, environment and command, with Debian's programs.
# $1: tree of unpacked packages, $2: empty folder to fill, $3: tag, then: docker and its arguments
set -euo pipefail
tree=$1 root=$2 tag=$3
shift 3

chmod 755 "$root"
mkdir -p "$root"/{bin,etc/caddy,etc/ssl/certs,usr/bin,usr/share/caddy,config/caddy,data/caddy,srv,tmp}
chmod 1777 "$root/tmp"
cp "$tree/usr/bin/caddy" "$root/usr/bin/caddy"
cp "$tree/etc/caddy/Caddyfile" "$root/etc/caddy/"
cp "$tree/usr/share/caddy/index.html" "$root/usr/share/caddy/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnobody:x:65534:\n' >"$root/etc/group"

busybox=$(find "$tree" -type f -path '*bin/busybox')
cp "$busybox" "$root/bin/busybox"
for applet in cat chown id ls nc ps sh sleep wget; do
  ln -s busybox "$root/bin/$applet"
done

# The libraries that Caddy is linked against, as the packages' own loader finds them, and the loader where Caddy expects it.
loader=$(find "$tree" -type f -name 'ld-linux*.so*')
libraries=$(dirname "$(find "$tree" -name libc.so.6)"):$(dirname "$(find "$tree" -name libzstd.so.1)")
"$loader" --library-path "$libraries" --list "$root/usr/bin/caddy" | awk '$3 ~ /^\// { print $1, $3 }' | while read -r name file; do
  case $name in
  /*) install -D "$file" "$root$name" ;;
  *) install -D -m 644 "$file" "$root/lib/$name" ;;
  esac
done
[ -x "$root/$(cd "$tree" && find lib lib64 -maxdepth 1 -name 'ld-linux*' 2>/dev/null | head -n 1)" ]

tar -C "$root" --numeric-owner --owner=0 --group=0 --sort=name --mtime=@0 -c . | "$@" import \
  --change 'ENV CADDY_VERSION=v2.6.2' --change 'ENV XDG_CONFIG_HOME=/config' --change 'ENV XDG_DATA_HOME=/data' \
  --change 'EXPOSE 80 443 443/udp 2019' --change 'WORKDIR /srv' \
  --change 'CMD ["caddy","run","--config","/etc/caddy/Caddyfile","--adapter","caddyfile"]' - "$tag"
