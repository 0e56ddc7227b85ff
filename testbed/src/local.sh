# A private SSH server for the current user. Stdin is the lifeline: when its other end is gone, everything is removed.
# In: KEYS (folder with its configuration), PROJECTS (folder to remove at the end). Out: one line, "ready".
trap '' HUP INT QUIT TERM PIPE
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd # only root's sshd asks for it
/usr/sbin/sshd -D -e -f "$KEYS/sshd_config" 2>"$KEYS/log" </dev/null &
server=$!
echo "ready "
read -r _
pkill -TERM -P "$server"
kill "$server" 2>/dev/null
wait "$server"
rm -rf "$KEYS" "$PROJECTS"
