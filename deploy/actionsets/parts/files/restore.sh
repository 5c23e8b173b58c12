tar --version 2>/dev/null | grep -q 'GNU tar' || fail "tar in this image is not GNU tar; set KBB_IMAGE to an image with bash, GNU tar and coreutils"
read_chain paths
IFS=, read -ra roots <<<"$(value paths)"
for root in "${roots[@]}"; do take "$root"; done

# Every file of an archive is as it was in the stream: verify BACKUP NUMBER
verify() {
  local kind
  for kind in sha256 stat; do at "$1" pull -d zstd "/$kind-$2.zst" - | sort -z > "$work/$kind"; done
  (
    cd "$stage"
    cut -zc67- "$work/sha256" > "$work/names"
    xargs -0r sha256sum -z -- < "$work/names" | sort -z > "$work/sha256.found" || true
    xargs -0r stat --printf='%a %u %g %s %Y %n\0' -- < "$work/names" | sort -z > "$work/stat.found" || true
  )
  for kind in sha256 stat; do
    comm -z -23 "$work/$kind" "$work/$kind.found" | tr '\0' '\n' | head -n 5 > "$work/off"
    [ ! -s "$work/off" ] || { cat "$work/off" >&2; fail "files came back otherwise than backup $1 has them (the first ones above)"; }
  done
}
# The list in each archive also says what had vanished.
into() { tar -x --numeric-owner --acls --xattrs --xattrs-include='user.*' --listed-incremental=/dev/null -C "$stage"; }
total=0
for number in "${!roots[@]}"; do
  stage="${roots[$number]}/.kbbackup-stage"
  mkdir "$stage"
  for name in "${chain[@]}"; do
    facts="$work/$name.complete"
    unpack "$name" "data-$number.tar$(value suffix "$facts")" "$(value "sha256-$number" "$facts")" into
    verify "$name" "$number"
  done
  total=$((total + $(find "$stage" -type f -printf . | wc -c)))
done
# All volumes are whole; only now they get their files, and the marks go last.
for number in "${!roots[@]}"; do
  root=${roots[$number]}; stage="$root/.kbbackup-stage"
  touch -r "$stage" "$work/time-$number"
  find "$stage" -mindepth 1 -maxdepth 1 -exec mv -t "$root" -- {} +
  chown --reference="$stage" "$root"; chmod --reference="$stage" "$root"
  rmdir "$stage"
done
restored "{\"engine\":\"files\",\"position\":\"$DP_BACKUP_NAME\",\"files\":\"$total\"}" "${roots[@]}"
for number in "${!roots[@]}"; do touch -r "$work/time-$number" "${roots[$number]}"; done
echo "restored $total files into ${roots[*]}"
