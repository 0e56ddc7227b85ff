# Lists what a project's folder holds. Writes nothing.
# $1: the project's folder; $2: the operator's folder.
# Lines: "L base64(ledger)", "M base64(id) base64(manifest)", "F mode size sha256 base64(path)", "N type base64(path)",
# "B" where a writer holds the host's lock; then "END".
for lock in "$2/.lock" "$2/.writing"; do
  [ -r "$lock" ] || continue
  exec 8<"$lock"
  flock -s -n 8 || printf 'B\n'
  exec 8<&-
done
[ -e "$1" ] || { printf 'END\n'; exit 0; }
cd "$1" || exit 73
word() { printf '%s' "$1" | base64 -w 0; }
[ -f ledger.json ] && printf 'L %s\n' "$(base64 -w 0 <ledger.json)"
# The ledger's own line with the current release; in its other texts, quotes are escaped.
current=$(sed -n 's/^ *"current": "\([0-9a-f]*\)".*/\1/p' ledger.json 2>/dev/null)
manifest=releases/$current/manifest.json
[ -n "$current" ] && [ -f "$manifest" ] && printf 'M %s %s\n' "$(word "$current")" "$(base64 -w 0 <"$manifest")"
set --
for path in compose.yaml files; do
  if [ -e "$path" ] || [ -L "$path" ]; then set -- "$@" "$path"; fi
done
[ "$#" = 0 ] || find "$@" -exec sh -c '
  for path do
    if [ -f "$path" ] && [ ! -L "$path" ]; then
      hash=$(sha256sum <"$path") || continue
      printf "F %s %s %s\n" "$(stat -c "%a %s" -- "$path")" "${hash%% *}" "$(printf "%s" "$path" | base64 -w 0)"
    elif [ -L "$path" ] || [ ! -d "$path" ]; then
      printf "N %s %s\n" "$(stat -c %f -- "$path")" "$(printf "%s" "$path" | base64 -w 0)"
    fi
  done
  :' sh {} + || exit 70
printf 'END\n'
