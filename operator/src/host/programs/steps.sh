# Carries out staged steps, in their order; the first that fails is the last. Holds the second lock while it runs,
# whether anybody still waits for it or not.
# $1: the operator's folder; $2: the project's folder below it, or nothing; $3: the writer's epoch; $4: what was staged.
# Steps, every text in base64: "F path number" renames a staged file into its place; "M path mode" makes a folder and
# sets its mode; "P path mode" sets a mode; "R path" removes a file; "S" makes sure that files are on
# the disk; "A path time" sets aside what stands at a path; "K releases…" removes every other stored release;
# "I images…" removes images that no stored release names; "X destination number kind image (name attributes)…" extracts
# a staged archive as root, into a folder ("f"), over a folder itself ("o") or onto a volume ("v"); "D seconds words…"
# runs docker.
# Exit 75: a program of another writer still runs; 76: another writer took over; 73: cannot write; 1: docker failed.
umask 022
base=$1 project=$1${2:+/$2} epoch=$3 staging=$4
container=tasktracker-extract.$(printf '%s' "$2" | tr / .) input=/dev/null
plain() { printf '%s' "$1" | base64 -d; }
say() { printf '%s\n' "$*" >>"$staging/said"; }
quietly() { # $*: arguments of docker
  timeout -k 5 25 env -i PATH="$PATH" HOME="$HOME" docker -H unix:///var/run/docker.sock "$@" </dev/null >/dev/null 2>&1
}
discard() { # $1: a staging folder. The container of an extraction that did not end goes with it
  [ ! -d "$1/extracted" ] || quietly rm -f -v "$container"
  rm -rf -- "$1"
}
fail() { code=$1; shift; say "$*"; discard "$staging"; exit "$code"; }
exec 9>>"$base/.writing" || fail 73 "$base/.writing cannot be opened"
tries=0 # whoever only looks holds it for a moment
until flock -n 9; do
  tries=$((tries + 1))
  [ "$tries" -lt 50 ] || fail 75
  sleep 0.1
done
[ "$(cat "$base/.epoch" 2>/dev/null)" = "$epoch" ] || fail 76 "$(cat "$base/.epoch" 2>&1)"
for left in "$project"/.staging.*; do # of an apply whose input was cut
  [ "$left" = "$staging" ] || discard "$left"
done
above() { # the folders above a path must be folders of our own, never links
  part=$project rest=$1
  while :; do
    case $rest in */*) part=$part/${rest%%/*} rest=${rest#*/} ;; *) return ;; esac
    [ ! -L "$part" ] || fail 73 "$part is a symbolic link"
    [ -d "$part" ] || mkdir "$part" || fail 73 "$part cannot be made"
  done
}
put() { # $1: path; $2: what was staged for it
  above "$1"
  [ ! -L "$project/$1" ] && [ ! -d "$project/$1" ] || fail 73 "$project/$1 is no file"
  mv -T -f -- "$staging/$2" "$project/$1" || fail 73 "$project/$1 cannot be replaced"
}
folder() { # $1: path; $2: mode. One that is made is nobody else's before it has its mode
  above "$1"
  [ -L "$project/$1" ] || [ -d "$project/$1" ] || mkdir -m "$2" "$project/$1" || fail 73 "$project/$1 cannot be made"
  mode "$1" "$2"
}
mode() { # $1: path; $2: mode
  above "$1"
  [ ! -L "$project/$1" ] || fail 73 "$project/$1 is a symbolic link"
  chmod "$2" "$project/$1" || fail 73 "the mode of $project/$1 cannot be set"
}
gone() { # $1: path
  [ -L "$project/$1" ] || [ ! -f "$project/$1" ] || rm -f -- "$project/$1" || fail 73 "$project/$1 cannot be removed"
}
aside() { # $1: path; $2: time. Nothing is followed, and nothing but an empty folder removed
  at=$project/$1
  [ -L "$at" ] || [ -e "$at" ] || return 0
  [ -L "$at" ] || ! rmdir "$at" 2>/dev/null || return 0
  [ ! -e "$at.moved-$2" ] && [ ! -L "$at.moved-$2" ] || fail 73 "$at.moved-$2 is there already"
  mv -T -- "$at" "$at.moved-$2" || fail 73 "$at cannot be set aside"
}
# The user's own configuration of the client may give every container an environment (`proxies`): this one has nothing
# but the plugins, and logins are not needed, since nothing is pulled here.
client=$staging/client plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
mkdir -m 700 "$client" && printf '{}\n' >"$client/config.json" || fail 73 "$staging is full"
[ ! -d "$plugins" ] || ln -s "$plugins" "$client/cli-plugins" || fail 73 "$staging is full"
run() { # $1: seconds; the rest: arguments of docker. What it says is cut, its status is kept.
  limit=$1
  shift
  {
    cd / && timeout -k 10 "$limit" env -i PATH="$PATH" HOME="$HOME" DOCKER_CONFIG="$client" \
      docker -H unix:///var/run/docker.sock "$@" <"$input" 2>&1
    echo "$?" >"$staging/status"
  } | { head -c 65536; cat >/dev/null; } >"$staging/output"
  status=$(cat "$staging/status" 2>/dev/null)
  [ "$status" = 0 ] && return
  # What somebody else did meanwhile is done.
  case "$1 $(head -c 4096 "$staging/output")" in
    unpause*' is not paused'* | 'network '*' is not connected to '*) return ;;
    rename*' same name as its current name'* | rm*'No such container'*) return ;;
  esac
  say "docker $1: exit status ${status:-unknown}"
  cat "$staging/output" >>"$staging/said"
  discard "$staging"
  exit 1
}
extract() { # $1: folder or volume; $2: what was staged; $3: kind; $4: image; the rest: names, each with its attributes
  destination=$1 archive=$staging/$2 kind=$3 image=$(plain "$4") inside=/tasktracker-extract
  shift 4
  mkdir -m 700 "$staging/extracted" || fail 73 "$staging is full"
  case $kind in
    f) mount=type=bind,src=$staging/extracted,dst=$inside ;;
    o)
      above "$destination/."
      mount=type=bind,src=$project/$destination,dst=$inside/$(plain "$1")
      ;;
    v)
      run 60 volume inspect "$destination" # Docker would make one without labels
      mount=type=volume,src=$destination,dst=$inside/$(plain "$1"),volume-nocopy
      ;;
  esac
  quietly rm -f -v "$container"
  # It is never started. Without `-a`, which knows no other owner than the image's user, owners are those of the archive.
  run 60 create --name "$container" --pull never --network none --mount "$mount" --entrypoint "$inside" "$image"
  input=$archive
  run 60 cp - "$container:$inside"
  input=/dev/null
  run 60 rm -f -v "$container"
  [ "$kind" != f ] || place "$@"
  rm -rf -- "$staging/extracted"
}
verify() { # names of extracted files, each with owner, group, mode and size
  while [ "$#" -gt 1 ]; do
    name=$(plain "$1")
    case $name in . | .. | */*) fail 73 "$destination: $name is no file name" ;; esac
    found=$(stat -c %u:%g:%a:%s -- "$staging/extracted/$name" 2>/dev/null)
    [ "$found" = "$2" ] || fail 73 "$destination/$name: expected owner, group, mode and size $2, found ${found:-no file}"
    shift 2
  done
}
place() { # the same. Renaming needs no right to what is renamed
  verify "$@"
  sync -f "$staging/extracted" 2>/dev/null || sync # who cannot read a file cannot sync it
  while [ "$#" -gt 1 ]; do
    name=$(plain "$1")
    put "$destination/$name" "extracted/$name"
    shift 2
  done
}
forget() { # $1: REPOSITORY@DIGEST. What any stored release names stays, and docker keeps what a container has
  grep -qsF -e "${1#*@}" "$base"/*/*/releases/*/manifest.json ||
    quietly rmi "$1"
}
while read -r verb first second rest; do
  case $verb in
    F) put "$(plain "$first")" "$second" ;;
    M) folder "$(plain "$first")" "$second" ;;
    P) mode "$(plain "$first")" "$second" ;;
    R) gone "$(plain "$first")" ;;
    S) sync "$project/.." "$project" "$project"/*/ "$project"/*/*/ 2>/dev/null ;;
    A) aside "$(plain "$first")" "$second" ;;
    K)
      for stored in "$project"/releases/*; do
        case " $first $second $rest " in *" ${stored##*/} "*) ;; *) rm -rf -- "$stored" ;; esac
      done
      ;;
    X) extract "$(plain "$first")" "$second" $rest ;;
    I) for word in $first $second $rest; do forget "$(plain "$word")"; done ;;
    D)
      set --
      for word in $second $rest; do set -- "$@" "$(plain "$word")"; done
      run "$first" "$@"
      ;;
    *) fail 65 "unknown step $verb" ;;
  esac
done <"$staging/steps"
rm -rf -- "$staging"
