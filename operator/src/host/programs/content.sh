# Prints the beginning of some files, a line of base64 each. Writes nothing.
# $1: the operator's folder; the rest: paths from it.
cd -- "$1" || exit 73
shift
for path do
  if [ -f "$path" ] && [ ! -L "$path" ]; then head -c 262144 -- "$path" | base64 | tr -d '\n'; fi
  echo
done
