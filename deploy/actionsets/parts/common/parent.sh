parent=${DP_PARENT_BACKUP_NAME:-}
if [ -n "$parent" ]; then
  at "$parent" pull /COMPLETE - > "$work/parent" || fail "the parent $parent has no COMPLETE object; take a full backup"
fi
# Ends if the parent is of something else: same FACT OURS THEIRS-IN-WORDS OURS-IN-WORDS
same() {
  if [ -n "$parent" ] && [ "$(value "$1" "$work/parent")" != "$2" ]; then fail "the parent $parent $3; take a full backup"; fi
}
