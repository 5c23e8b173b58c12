tar --version 2>/dev/null | grep -q 'GNU tar' || fail "tar in this image is not GNU tar; set KBB_IMAGE in the method's env to an image with bash, GNU tar and coreutils"
# What the method's targetVolumes mount is what is wanted, unless somebody says otherwise.
if [ -z "$paths" ]; then paths=$(mounts | paste -sd, -); fi
[ -n "$paths" ] || fail "no volume of the target is mounted here; name some in the method's targetVolumes"
case "$paths" in *[\"\\]*) fail "paths with quotes or backslashes cannot be recorded: $paths" ;; esac
IFS=, read -ra roots <<<"$paths"
for root in "${roots[@]}"; do [ -d "$root" ] || fail "$root is no directory here; the method's targetVolumes must mount it"; done
same paths "$paths" "holds other directories than $paths"
for number in "${!roots[@]}"; do forget "data-$number.tar" "snar-$number" "sha256-$number" "stat-$number"; done

skip=(); IFS=, read -ra patterns <<<"$excludes"
for pattern in "${patterns[@]}"; do skip+=(--exclude="$pattern"); done
# Digest and attributes of each file as they are in the stream, whatever becomes of the file meanwhile.
export SUMS="$work/sha256" STATS="$work/stat"
# shellcheck disable=SC2016 # tar's shell expands it
each='sum=$(sha256sum); printf "%s  %s\0" "${sum%% *}" "$TAR_FILENAME" >> "$SUMS"
  printf "%o %s %s %s %s %s\0" "$TAR_MODE" "$TAR_UID" "$TAR_GID" "$TAR_SIZE" "${TAR_MTIME%%.*}" "$TAR_FILENAME" >> "$STATS"'
archive() {
  # 1 says that files changed while they were read: they are stored as they were read.
  tar -c --numeric-owner --acls --xattrs --xattrs-include='user.*' --sparse --one-file-system --no-check-device \
    --listed-incremental="$work/snar" --exclude=./lost+found "${skip[@]}" -C "$root" . || { code=$?; echo "$code" > "$work/code"; [ "$code" -eq 1 ]; }
}
copy() { archive | tee "$work/list"; }
start=$(date +%FT%TZ); files=0; digests=""
for number in "${!roots[@]}"; do
  root=${roots[$number]}
  echo "storing ${parent:+what changed since $parent in }$root"
  : > "$work/snar"; : > "$SUMS"; : > "$STATS"
  if [ -n "$parent" ]; then at "$parent" pull -d zstd "/snar-$number.zst" - > "$work/snar"; fi
  rm -f "$work/list"; mkfifo "$work/list"
  { tar -xf - --to-command="$each"; cat > /dev/null; } < "$work/list" & list=$!
  store "data-$number.tar$suffix" copy || fail "$root could not be read or stored (the lines above)"
  wait "$list" || fail "the archive of $root cannot be listed"
  for part in snar sha256 stat; do datasafed push -z zstd-fastest "$work/$part" "/$part-$number.zst"; done
  files=$((files + $(tr -dc '\0' < "$SUMS" | wc -c)))
  digests+=",\"sha256-$number\":\"$digest\""
done
end=$(date -d '+1 second' +%FT%TZ)
changed=0; if [ -e "$work/code" ]; then changed=1; fi
facts="\"engine\":\"files\",\"paths\":\"$paths\",\"parent\":\"$parent\",\"files\":\"$files\",\"changed_while_read\":\"$changed\",\"suffix\":\"$suffix\""
complete "$facts" "\"tar\":\"$(tar --version | head -n 1)\"$digests" "$start" "$end"
[ "$changed" = 0 ] || echo "warning: files changed while they were read (the lines above); they are stored as they were read" >&2
echo "stored $files files of $paths in $size bytes"
