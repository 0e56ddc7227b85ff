# Takes steps and what they need, and has them carried out apart from this session: the end of the connection does not
# end them. Whoever calls holds the host's lock.
# $1: the program that carries them out; $2: the operator's folder; $3: the project's folder below it, or nothing;
# $4: the writer's epoch.
# Standard input, a line each, every text in base64: "F path mode sha256 content" and "C path mode sha256 source" put a
# file, "X destination mode sha256 archive more" extracts an archive: their contents are staged and verified first; the
# other steps are those of the program; "END" is the last.
# Exit 65: the input was cut; 74: a stored copy is damaged; 73: cannot write; else as the program says.
umask 022
program=$1 base=$2 below=$3 epoch=$4
project=$base${below:+/$below}
staging=
plain() { printf '%s' "$1" | base64 -d; }
fail() { code=$1; shift; printf '%s\n' "$*" >&2; [ -z "$staging" ] || rm -rf -- "$staging"; exit "$code"; }
mkdir -p "$base" || fail 73 "$base cannot be made"
part=$base rest=$below
while [ -n "$rest" ]; do # every part below the operator's folder must be a folder of our own, never a link
  part=$part/${rest%%/*}
  case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
  [ ! -L "$part" ] || fail 73 "$part is a symbolic link"
  [ -d "$part" ] || mkdir "$part" || fail 73 "$part cannot be made"
done
staging=$(mktemp -d "$project/.staging.XXXXXX") || fail 73 "$project cannot be written"
count=0 complete=
: >"$staging/steps" || fail 73 "$staging cannot be written"
while read -r verb path mode hash data more; do
  case $verb in
    END) complete=yes; break ;;
    F | C | X) ;;
    *) printf '%s\n' "$verb $path $mode $hash $data $more" >>"$staging/steps" || fail 73 "$staging is full"; continue ;;
  esac
  count=$((count + 1)) staged=$staging/$count
  name=$(plain "$path")
  case $verb in
    F | X) plain "$data" >"$staged" || fail 73 "$name cannot be staged" ;;
    C) cp -- "$project/$(plain "$data")" "$staged" 2>/dev/null || fail 74 "$name: its stored copy is missing" ;;
  esac
  found=$(sha256sum <"$staged")
  if [ "${found%% *}" != "$hash" ]; then
    [ "$verb" = C ] || fail 73 "$name cannot be staged"
    fail 74 "$name: its stored copy has the hash ${found%% *}"
  fi
  chmod "$mode" "$staged" || fail 73 "$name cannot be staged"
  [ "$verb" != C ] || verb=F
  printf '%s %s %s %s\n' "$verb" "$path" "$count" "$more" >>"$staging/steps" || fail 73 "$staging is full"
done
[ -n "$complete" ] || fail 65 "the input was cut"
[ "$count" = 0 ] || sync "$staging"/[1-9]* || fail 73 "$staging cannot be synced"
: >"$staging/said"
exec 7<"$staging/said"
setsid sh -c "$program" tasktracker "$base" "$below" "$epoch" "$staging" </dev/null >/dev/null 2>&1 7<&- &
wait "$!"
code=$?
cat <&7 >&2
exit "$code"
