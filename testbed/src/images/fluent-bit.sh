# The image of Fluent Bit: the upstream image's paths and command, with a program that was built here, and a shell.
# $1: folder with busybox, $2: the program, $3: empty folder to fill, $4: tag, then: docker and its arguments
set -euo pipefail
tree=$1 program=$2 root=$3 tag=$4
shift 4

chmod 755 "$root"
mkdir -p "$root"/{bin,etc/ssl/certs,fluent-bit/bin,fluent-bit/etc,tmp}
chmod 1777 "$root/tmp"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0::/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
cp "$(find "$tree" -type f -path '*bin/busybox')" "$root/bin/busybox"
for applet in cat id kill ls ps sh sleep; do
  ln -s busybox "$root/bin/$applet"
done
strip -o "$root/fluent-bit/bin/fluent-bit" "$program"

# What it is linked with, and the loader where it expects it.
ldd "$program" | awk '$1 ~ /^\// { print $1, $1 } $3 ~ /^\// { print $1, $3 }' | while read -r name file; do
  case $name in
  /*) install -D "$file" "$root$name" ;;
  *) install -D -m 644 "$file" "$root/lib/$name" ;;
  esac
done

tar -C "$root" --numeric-owner --sort=name --mtime=@0 -c . | "$@" import \
  --change 'ENTRYPOINT ["/fluent-bit/bin/fluent-bit"]' --change 'CMD ["-c","/fluent-bit/etc/fluent-bit.conf"]' \
  --change 'EXPOSE 2020' - "$tag"
