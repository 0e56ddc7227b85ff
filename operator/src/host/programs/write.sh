# Puts files into a project's folder: all staged and verified before the first is renamed.
# Whoever calls holds the host's lock; the second lock lasts as long as this does, even where the caller is gone.
# $1: the operator's folder; $2: the project's folder below it.
# Standard input, a line each, path, content and source in base64: "F path mode sha256 content", "C path mode sha256 source"; then "END".
# Exit 75: a program of another writer still runs; 65: the input was cut; 74: a stored copy is damaged; 73: cannot write.
umask 022
base=$1 project=$1/$2
plain() { printf '%s' "$1" | base64 -d; }
fail() { code=$1; shift; printf '%s\n' "$*" >&2; [ -z "$staging" ] || rm -rf -- "$staging"; exit "$code"; }
folder() { # every part below the operator's folder must be a folder of our own, never a link
  part=$base rest=$1
  while [ -n "$rest" ]; do
    part=$part/${rest%%/*}
    case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
    [ ! -L "$part" ] || fail 73 "$part is a symbolic link"
    [ -d "$part" ] || mkdir "$part" || fail 73 "$part cannot be made"
  done
}
staging=
mkdir -p "$base" || fail 73 "$base cannot be made"
(: >>"$base/.writing") || fail 73 "$base/.writing cannot be opened"
exec 9>>"$base/.writing"
tries=0 # whoever only looks holds it for a moment
until flock -n 9; do
  tries=$((tries + 1))
  [ "$tries" -lt 50 ] || exit 75
  sleep 0.1
done
folder "$2"
staging=$(mktemp -d "$project/.staging.XXXXXX") || fail 73 "$project cannot be written"
count=0 complete=
while read -r verb path mode hash data; do
  [ "$verb" != END ] || { complete=yes; break; }
  count=$((count + 1)) staged=$staging/$((count))
  plain "$path" >"$staged.path" || fail 65 "a path cannot be decoded"
  case $verb in
    F) plain "$data" >"$staged" || fail 73 "$(cat "$staged.path") cannot be staged" ;;
    C) cp -- "$project/$(plain "$data")" "$staged" 2>/dev/null || fail 74 "$(cat "$staged.path"): its stored copy is missing" ;;
    *) fail 65 "unknown verb" ;;
  esac
  found=$(sha256sum <"$staged")
  [ "${found%% *}" = "$hash" ] || fail 74 "$(cat "$staged.path"): its stored copy has the hash ${found%% *}"
  chmod "$mode" "$staged" && sync "$staged" || fail 73 "$(cat "$staged.path") cannot be staged"
done
[ -n "$complete" ] || fail 65 "the input was cut"
index=0
while [ "$index" -lt "$count" ]; do
  index=$((index + 1)) staged=$staging/$index
  path=$(cat "$staged.path")
  case $path in */*) folder "$2/${path%/*}" ;; esac
  [ ! -L "$project/$path" ] && [ ! -d "$project/$path" ] || fail 73 "$project/$path is no file"
  mv -T -f -- "$staged" "$project/$path" || fail 73 "$project/$path cannot be replaced"
done
sync "$project" "$project"/*/ 2>/dev/null
rm -rf -- "$staging"
