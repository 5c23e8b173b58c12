work=$(mktemp -d)
trap 'code=$?; rm -rf "$work"; exit "$code"' EXIT
owner=${KBB_DATA_UID:-$(id -u postgres 2> /dev/null || echo 999)}
group=$(id -g "$owner" 2> /dev/null || echo "$owner")
as_owner() {
  if command -v setpriv > /dev/null && setpriv --help 2>&1 | grep -q reuid; then
    setpriv --reuid "$owner" --regid "$group" --clear-groups -- "$@"
  elif command -v gosu > /dev/null; then gosu "$owner:$group" "$@"
  elif command -v su-exec > /dev/null; then su-exec "$owner:$group" "$@"
  else fail "this image has none of setpriv, gosu, su-exec to run the server without root"
  fi
}
major=$(pg_ctl --version | grep -o '[0-9]*' | head -n 1)
same_major() {
  [ "${1%????}" = "$major" ] ||
    fail "the backup is of PostgreSQL ${1%????}, this image has $major; set KBB_IMAGE to an image of the same major version"
}
# What a backup says of itself, into FILE: about NAME FILE
about() {
  local path="$DP_BACKUP_BASE_PATH"
  if [ "$1" != "$DP_BACKUP_NAME" ]; then path="$DP_BACKUP_ROOT_PATH/$1${DP_TARGET_RELATIVE_PATH:+/$DP_TARGET_RELATIVE_PATH}"; fi
  DATASAFED_BACKEND_BASE_PATH="$path" datasafed pull /COMPLETE "$2" ||
    fail "backup $1 has no COMPLETE: it never became whole, or has been tampered with"
  DATASAFED_BACKEND_BASE_PATH="$path" datasafed pull /sums "$2.sums"
  [ "$(sha256sum < "$2.sums" | cut -c1-64)" = "$(field sums "$2")" ] || fail "the list of objects of backup $1 is not what COMPLETE says"
  echo "$path" > "$2.path"
}
# Unpacks one object of a backup: unpack ABOUT OBJECT DIRECTORY
unpack() {
  local expand=() sum
  case "$2" in *.zst) expand=(-d zstd) ;; esac
  [ -p "$work/tap" ] || mkfifo "$work/tap"
  sha256sum < "$work/tap" > "$work/digest" & sum=$!
  echo "unpacking $2 into $3"
  DATASAFED_BACKEND_BASE_PATH="$(cat "$1.path")" datasafed pull "${expand[@]}" "/$2" - | tee "$work/tap" |
    { tar -xpf - -C "$3" && cat > /dev/null; }
  wait "$sum"
  grep -qx "$(cut -c1-64 "$work/digest") $2" "$1.sums" || fail "$2 is not what was stored: its digest is another"
}
objects() { cut -c66- "$1.sums"; }
hand_over() { chown -R "$owner:$group" "$data"; chmod 0700 "$data"; }
verify_files() {
  echo "verifying every file against the backup manifest"
  pg_verifybackup --quiet --ignore=.kbbackup-restore --ignore=lost+found "$data" || fail "the restored files do not match the backup manifest"
  # The server makes the links anew from this.
  if [ -e "$work/map" ]; then cat "$work/map" > "$data/tablespace_map"; fi
}
