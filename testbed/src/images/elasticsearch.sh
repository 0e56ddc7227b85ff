# The image of Elasticsearch: the upstream image's paths, user, entrypoint and environment, with Elastic's own build for
# integration tests, which lacks parts of the released one (see elasticsearch/Gaps.java), and Debian's Java and shell.
# $1: tree of unpacked packages, $2: the build's archive, $3: empty folder to fill, $4: tag, then: docker and its arguments;
# `gaps`: the text of Gaps.java
set -euo pipefail
tree=$1 archive=$2 root=$3 tag=$4
shift 4
version=${tag##*:}
home=$root/usr/share/elasticsearch

chmod 755 "$root"
mkdir -p "$root"/{usr/bin,usr/lib,usr/lib64,usr/share,usr/local/bin,etc,tmp}
for folder in bin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done
chmod 1777 "$root/tmp"
# Some releases have their libraries below /usr, others do not.
for folder in lib lib64 usr/lib usr/lib64; do
  [ ! -d "$tree/$folder" ] || cp -a "$tree/$folder/." "$root/usr/${folder#usr/}/"
done
cp "$(find "$tree" -type f -path '*bin/bash')" "$root/usr/bin/bash"
cp "$(find "$tree" -type f -path '*bin/busybox')" "$root/usr/bin/busybox"
for applet in awk basename cat chmod chown cut df dirname env expr grep hostname id ln ls mkdir mktemp ps readlink rm sed sh \
  sleep stat tr uname wget; do
  ln -s busybox "$root/usr/bin/$applet"
done
printf 'root:x:0:0::/root:/bin/sh\nelasticsearch:x:1000:0::/usr/share/elasticsearch:/bin/bash\n' >"$root/etc/passwd"
printf 'root:x:0:\nelasticsearch:x:1000:\n' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
(cd "$unpacked" && jar xf "$archive")
mv "$unpacked/elasticsearch-$version" "$home"
chmod 755 "$home"/bin/*
rm -f "$home"/bin/*.bat "$home"/bin/*.exe
mkdir -p "$home/data" "$home/logs" "$home/plugins/gaps" "$unpacked/classes"
printf '%s\n' "$gaps" >"$unpacked/Gaps.java"
javac --release 17 -nowarn -cp "$(printf '%s:' "$home"/lib/*.jar "$home"/modules/x-pack-core/*.jar)" -d "$unpacked/classes" "$unpacked/Gaps.java"
jar cf "$home/plugins/gaps/gaps.jar" -C "$unpacked/classes" .
cat >"$home/plugins/gaps/plugin-descriptor.properties" <<DESCRIPTOR
name=gaps
description=What a build for integration tests lacks
version=1
elasticsearch.version=$version
java.version=17
classname=gaps.Gaps
extended.plugins=x-pack-core
has.native.controller=false
DESCRIPTOR
jlink --add-modules java.se,jdk.unsupported,jdk.management,jdk.management.agent,jdk.crypto.ec,jdk.crypto.cryptoki,jdk.zipfs,jdk.naming.dns,jdk.localedata,jdk.attach,jdk.net,jdk.charsets,jdk.jdi,jdk.httpserver,jdk.security.auth,jdk.security.jgss,jdk.jlink \
  --strip-debug --no-header-files --no-man-pages --compress=2 --output "$home/jdk"
printf 'cluster.name: docker-cluster\nnetwork.host: 0.0.0.0\n' >"$home/config/elasticsearch.yml"

# As upstream: settings are the variables of the environment with a dot in their names.
cat >"$root/usr/local/bin/docker-entrypoint.sh" <<'ENTRYPOINT'
#!/bin/bash
set -e
cd /usr/share/elasticsearch
settings=()
while IFS='=' read -r name value; do
  [[ $name == *.* ]] && settings+=("-E$name=$value")
done < <(env)
exec bin/elasticsearch "${settings[@]}"
ENTRYPOINT
chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"
chown -R 1000:0 "$home"
chmod -R g=u "$home"

tar -C "$root" --numeric-owner --sort=name --mtime=@0 -c . | "$@" import \
  --change 'ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]' --change 'CMD ["eswrapper"]' --change 'USER 1000:0' \
  --change 'WORKDIR /usr/share/elasticsearch' --change 'EXPOSE 9200 9300' \
  --change 'ENV PATH=/usr/share/elasticsearch/bin:/usr/bin' --change 'ENV ES_JAVA_HOME=/usr/share/elasticsearch/jdk' - "$tag"
