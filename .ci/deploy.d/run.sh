step "the image's root file system, run as uid 65532 without a capability"
# A Secret as the kubelet mounts it: read-only, root:65532, mode 0440, swapped through ..data.
secret=$scratch/secret
version() {
    mkdir -p "$secret/..$1"
    "$binary" keys issue --audience client --algorithm "$2" --keys "$scratch/issue-$1" --state "$scratch/issue-$1.state" > /dev/null 2> "$scratch/log"
    for file in "$scratch/issue-$1"/*; do
        install -o 0 -g 65532 -m 0440 "$file" "$secret/..$1/"
        ln -sfn "..data/$(basename "$file")" "$secret/$(basename "$file")"
    done
    ln -sfn "..$1" "$secret/..data_tmp"
    mv -T "$secret/..data_tmp" "$secret/..data"
}
version one ES256
mkdir -p "$rootfs/keys" "$rootfs/var/lib/jwksd" "$rootfs/etc/jwksd" "$scratch/state"
chown 65532:65532 "$scratch/state"
ulimit -c 0
unshare --mount --propagation private bash -euc '
    rootfs=$1; secret=$2; state=$3; config=$4; shift 4
    mount --bind "$rootfs" "$rootfs"
    mount --bind "$secret" "$rootfs/keys"; mount -o remount,bind,ro "$rootfs/keys"
    mount --bind "$config" "$rootfs/etc/jwksd"; mount -o remount,bind,ro "$rootfs/etc/jwksd"
    mount --bind "$state" "$rootfs/var/lib/jwksd"
    mount -o remount,bind,ro "$rootfs"
    # chroot needs three capabilities itself; its change of user drops them.
    exec env -i PATH="$PATH" setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
        chroot --userspec=65532:65532 --groups=65532 "$rootfs" /jwksd "$@"
' - "$rootfs" "$secret" "$scratch/state" "$PWD/deploy/kubernetes/base" serve \
    --config /etc/jwksd/jwksd.toml --listen "127.0.0.1:$public" --ops-listen "127.0.0.1:$ops" 2> "$scratch/log" &
daemon=$!
await 1
grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs|VmHWM):' "/proc/$daemon/status" > "$scratch/status"
tr -s '\t\n' ' ' < "$scratch/status"; echo
[ "$(grep -cE '^Cap(Inh|Prm|Eff|Amb):\s0{16}$' "$scratch/status")" = 4 ] || fail "it has capabilities"
grep -qE '^Uid:(\s65532){4}$' "$scratch/status" || fail "it runs as another user"
grep -qE '^Gid:(\s65532){4}$' "$scratch/status" || fail "it runs as another group"
grep -qE '^NoNewPrivs:\s1$' "$scratch/status" || fail "it could gain privileges"
for place in / /keys/ /etc/jwksd/; do
    if touch "/proc/$daemon/root${place}written" 2> /dev/null; then fail "$place can be written"; fi
done
# The Secret is replaced as a whole: the old key stays for its grace, out of the ledger.
version two RS256
rm -rf "$secret/..one"
await 2
[ "$(find "$scratch/state" -name '*.json' -path '*current*' | wc -l)" -ge 1 ] || fail "no signer is told its key"
"$python" .ci/deploy.d/answers.py "$ops"
kill -TERM "$daemon"
wait "$daemon" || { cat "$scratch/log"; fail "SIGTERM did not end it with 0"; }
daemon=
echo "ended by SIGTERM with exit code 0"
