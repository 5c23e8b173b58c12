names="${DP_BASE_BACKUP_NAME:+$DP_BASE_BACKUP_NAME,}${DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES:+$DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES,}"
if [ "${DP_BASE_BACKUP_NAME:-}" = "$DP_BACKUP_NAME" ]; then names=""; fi
IFS=, read -ra chain <<< "$names$DP_BACKUP_NAME"
parent=""
for name in "${chain[@]}"; do
  about "$name" "$work/about.$name"
  [ "$(field parent "$work/about.$name")" = "$parent" ] ||
    fail "$name was made on top of $(field parent "$work/about.$name"), and the chain has ${parent:-nothing} there"
  parent=$name
done
about="$work/about.$DP_BACKUP_NAME"
same_major "$(field server_version_num "$about")"
superuser=$(field superuser "$about") identifier=$(field system_identifier "$about")
find_data "$about"
take "$data"
if [ "${#chain[@]}" = 1 ]; then
  unpack "$about" "$(objects "$about" | grep -E '^base\.tar')" "$data"
  place_tablespaces "$about"
  # With tablespaces it is part of no tar.
  [ -e "$data/backup_manifest" ] || datasafed pull /backup_manifest "$data/backup_manifest"
else
  command -v pg_combinebackup > /dev/null || fail "no pg_combinebackup in this image; set KBB_IMAGE to the database's own image"
  layers=()
  for name in "${chain[@]}"; do
    layers+=("$data/.kbbackup-chain/$name")
    mkdir -p "$data/.kbbackup-chain/$name"
    unpack "$work/about.$name" "$(objects "$work/about.$name" | grep -E '^base\.tar')" "$data/.kbbackup-chain/$name"
    chmod 0700 "$data/.kbbackup-chain/$name"
  done
  echo "putting ${#chain[@]} backups together"
  pg_combinebackup -o "$data/.kbbackup-whole" "${layers[@]}"
  rm -rf "$data/.kbbackup-chain"
  find "$data/.kbbackup-whole" -mindepth 1 -maxdepth 1 -exec mv -t "$data" {} +
  rmdir "$data/.kbbackup-whole"
fi
sync "$data"
verify_files
hand_over
if [ -n "${DP_RESTORE_TIMESTAMP:-}" ]; then
  echo "left unrecovered: the log stage follows"
  exit 0
fi
recover
conclude
