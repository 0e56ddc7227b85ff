# Answers what the operator asks about its folder on this host, until its input ends. Writes nothing, starts nothing
# by itself. $1: the operator's folder; the rest: folders of stacks in it.
# A request is a line, "VERB NUMBER". Each answer ends with "END STATE": the number of the state of files it speaks of.
LC_ALL=C
export LC_ALL
folder=$1
shift
odd='*[!A-Za-z0-9._/-]*'
describe='facts=$(stat -c "%f %s %u %g %i %y %z" -- "$1") || exit 0
printf "O %s %s\n" "$(printf %s "$1" | base64 | tr -d "\n")" "$facts"'
# Everything but releases (of these, the manifests) and what a writer stages. What is more than anybody needs is cut.
# Busybox carries out only one `-exec … +` of an expression.
every() {
  [ "$#" -gt 0 ] && cd -- "$folder" || return 0
  find "$@" -name '.staging.*' -prune -o -path '*/releases/*/*' ! -name manifest.json -prune -o \
    \( -path "$odd" -exec sh -c "$describe" sh {} \; \) -o -exec stat -c 'S %n %f %s %u %g %i %y %z' {} + | head -n 4001
}
hashes() {
  [ "$#" -gt 0 ] && cd -- "$folder" || return 0
  find "$@" -name '.staging.*' -prune -o -path '*/releases/*/*' ! -name manifest.json -prune -o \
    -type f ! -path "$odd" -size -2049 -exec sha256sum {} + | head -n 4001
}
encoded() { # $1: a letter; $2: a plain path of a file
  [ -f "$2" ] && [ ! -L "$2" ] && printf '%s %s %s\n' "$1" "$2" "$(head -c 1048576 -- "$2" | base64 | tr -d '\n')"
}
# Ledgers, the manifests of the releases that they name, what a person holds, and keys of seals.
texts() {
  cd -- "$folder" || return 0
  for stack do
    encoded T "$stack/.key"
    for project in "$stack"/*/; do
      project=${project%/}
      case $project in $odd) continue ;; esac
      encoded T "$project/HOLD"
      encoded T "$project/ledger.json"
      # The ledger's own line with the current release; in its other texts, quotes are escaped.
      current=$(sed -n 's/^ *"current": "\([0-9a-f]*\)".*/\1/p' "$project/ledger.json")
      [ -z "$current" ] || encoded T "$project/releases/$current/manifest.json"
    done
  done
}
# Whether a writer is at work.
locks() {
  for lock in "$folder/.lock" "$folder/.writing"; do
    [ -r "$lock" ] || continue
    flock -s -n 8 8<"$lock" || printf 'B\n'
  done
}
# Addresses and TCP ports on which something listens, in hexadecimal digits.
ports() {
  for table in /proc/net/tcp /proc/net/tcp6; do
    while read -r _ local _ state _; do
      [ "$state" != 0A ] || printf 'P %s\n' "$local"
    done <"$table"
  done
}
# What is mounted where: device, root within its file system, place. $1: a process, or 0 for this one.
mounts() {
  [ "$1" != 0 ] || set -- self
  while read -r _ _ device root place _; do
    case "$root $place" in *[!\ -~]*) continue ;; esac
    printf 'M %s %s %s\n' "$device" "$root" "$place"
  done <"/proc/$1/mountinfo"
}
# Lines of files, each with the file's name. $1: a folder; the rest: files in it.
shown() {
  at=$1
  shift
  for file do
    while read -r line; do printf 'U %s %s\n' "$file" "$line"; done <"$at/$file"
  done
}
# The group that Docker made, and not one that the container made for itself below it: the last part with an ID in it.
# $1: a path of groups. Sets $path.
made_by_docker() {
  path= whole= rest=$1/
  while [ -n "$rest" ]; do
    part=${rest%%/*}
    rest=${rest#*/}
    [ -n "$part" ] || continue
    whole=$whole/$part
    part=${part#docker-}
    part=${part%.scope}
    case $part in *[!0-9a-f]*) continue ;; esac
    [ ${#part} != 64 ] || path=$whole
  done
  path=${path:-$whole}
}
# What the control groups of a process use, version 2 or 1. $1: the process.
usage() {
  groups=/sys/fs/cgroup
  while IFS=: read -r _ of path; do
    made_by_docker "$path"
    case $of in
      '') shown "$groups$path" memory.current memory.max memory.stat cpu.stat pids.current pids.max io.stat ;;
      memory) shown "$groups/memory$path" memory.usage_in_bytes memory.limit_in_bytes memory.stat ;;
      *cpuacct*) shown "$groups/cpuacct$path" cpuacct.usage ;;
      pids) shown "$groups/pids$path" pids.current pids.max ;;
      blkio) shown "$groups/blkio$path" blkio.throttle.io_service_bytes_recursive ;;
    esac
    case ,$of, in *,cpu,*) shown "$groups/cpu$path" cpu.stat ;; esac
  done <"/proc/$1/cgroup"
}
state= number=0
while read -r verb asked; do
  case $verb in
    sweep | list)
      now=$(every "$@")
      if [ "$now" != "$state" ]; then state=$now number=$((number + 1)); fi
      ;;
  esac
  case $verb in
    list)
      printf '%s\n' "$state"
      (hashes "$@")
      ;;
    texts) (texts "$@") ;;
    locks) locks ;;
    ports) ports ;;
    mounts) mounts "$asked" ;;
    usage) usage "$asked" ;;
  esac
  printf 'END %s\n' "$number"
done 2>/dev/null
