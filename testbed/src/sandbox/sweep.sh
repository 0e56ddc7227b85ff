# Removes what hosts and networks left behind whose supervisor was killed. In: SANDBOXES (folder of all of them).
# A supervisor holds the lock of its folder for as long as it lives; a folder without one is still being filled.
exec 2>/dev/null
for folder in "$SANDBOXES"/*/; do
  folder=${folder%/} id=${folder##*/}
  [ -d "$folder" ] || continue
  if [ -e "$folder/lock" ]; then
    exec 8<"$folder/lock" && flock -n 8 || continue
  else
    [ -n "$(find "$folder" -maxdepth 0 -mmin +10)" ] || continue
  fi
  ip netns delete "tt-$id"
  find /sys/fs/cgroup -mindepth 1 -depth -type d -path "*/tt-$id*" -exec rmdir {} +
  rm -rf "$folder"
done
