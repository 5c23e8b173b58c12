export PATH="$PATH:/opt/bitnami/etcd/bin"
number() { grep -o "\"$1\":[0-9]*" <<<"$2" | head -n 1 | cut -d: -f2; }
read_chain engine
command -v etcdutl > /dev/null || fail "no etcdutl in this image; set KBB_IMAGE to an image with bash and etcdutl of the server's version"
version=$(value version); tools=$(etcdutl version | sed -n 's/^etcdutl version: //p')
[ "${version%.*}" = "${tools%.*}" ] || fail "the backup is of etcd $version, etcdutl is $tools; set KBB_IMAGE to an image of the same minor version"

# Who this member is, and who the others are: alone, as long as nobody says otherwise.
name=${member:-}; name=${name:-$(value member)}
cluster=${initialCluster:-}; token=${token:-}; bump=${bumpRevision:-1000000000}
peer=$(value peer)
if [ -n "$cluster" ]; then
  peer=$(tr , '\n' <<<"$cluster" | sed -n "s|^$name=||p" | head -n 1)
  [ -n "$peer" ] || fail "initialCluster does not name the member $name: $cluster"
fi

data=${KBB_DATA_DIR:-$(value data_directory)}
take "$data"
stage="$data/.kbbackup-stage"
into() { cat > "$work/snapshot.db"; }
unpack "$DP_BACKUP_NAME" "$(value object)" "$(value sha256)" into
# A revision that goes back is poison for clients that have seen a later one: caches, controllers, leases of locks.
ahead=(); if [ "$bump" != 0 ]; then ahead=(--bump-revision "$bump" --mark-compacted); fi
echo "restoring member $name at $peer"
etcdutl snapshot restore "$work/snapshot.db" --data-dir "$stage" --name "$name" --initial-cluster "${cluster:-$name=$peer}" \
  --initial-cluster-token "${token:-kbbackup-$DP_BACKUP_NAME}" --initial-advertise-peer-urls "$peer" "${ahead[@]}" > "$work/log" 2>&1 ||
  { tail -n 10 "$work/log" >&2; fail "etcdutl snapshot restore failed (the last lines above)"; }
found=$(etcdutl snapshot status "$stage/member/snap/db" -w json) || fail "etcdutl finds the restored data damaged"
revision=$(number revision "$found")
[ "$revision" = "$(($(value revision) + bump))" ] || fail "the restored data is at revision $revision; the backup's is $(value revision)"
mv "$stage/member" "$data/member"
rmdir "$stage"
chown -R "${KBB_DATA_UID:-$(value owner)}" "$data"
chmod 0700 "$data"
restored "{\"engine\":\"etcd\",\"position\":\"$revision\",\"backup_revision\":\"$(value revision)\",\"member\":\"$name\"}" "$data"
echo "restored to revision $revision as member $name"
