# Lists what a project's folder holds. Writes nothing.
# $1: the project's folder; $2: the operator's folder.
# Lines: "L base64(ledger)", "M base64(id) base64(manifest)", "F mode size sha256 base64(path)", "N type base64(path)",
# "B" where a writer holds the host's lock; then "END".
if [ -r "$2/.lock" ]; then
  exec 8<"$2/.lock"
  flock -s -n 8 || printf 'B\n'
  exec 8<&-
fi
cd "$1" 2>/dev/null || { printf 'END\n'; exit 0; }
word() { printf '%s' "$1" | base64 -w 0; }
[ -f ledger.json ] && printf 'L %s\n' "$(base64 -w 0 <ledger.json)"
for manifest in releases/*/manifest.json; do
  [ -f "$manifest" ] || continue
  id=${manifest#releases/}
  printf 'M %s %s\n' "$(word "${id%/manifest.json}")" "$(base64 -w 0 <"$manifest")"
done
find compose.yaml files -exec sh -c '
  for path do
    if [ -f "$path" ] && [ ! -L "$path" ]; then
      hash=$(sha256sum <"$path") || continue
      printf "F %s %s %s\n" "$(stat -c "%a %s" -- "$path")" "${hash%% *}" "$(printf "%s" "$path" | base64 -w 0)"
    elif [ -L "$path" ] || [ ! -d "$path" ]; then
      printf "N %s %s\n" "$(stat -c %f -- "$path")" "$(printf "%s" "$path" | base64 -w 0)"
    fi
  done' sh {} + 2>/dev/null
printf 'END\n'
