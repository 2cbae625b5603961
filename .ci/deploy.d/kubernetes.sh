step "Kubernetes"
for overlay in base overlays/cert-manager overlays/fleet overlays/issuer overlays/persistent overlays/rotation; do
    rendered=$scratch/$(basename "$overlay").yaml
    "${kustomize[@]}" "deploy/kubernetes/$overlay" > "$rendered"
    # The first version with native sidecars on by default, and the newest one known here.
    for kubernetes in 1.29 1.37; do
        "$tools/bin/kubernetes-validate" --strict --quiet --no-warn -k "$kubernetes" "$rendered"
    done
    "$python" .ci/deploy.d/manifests.py "$rendered" deploy/kubernetes/crds.schema.json "$scratch"
    "$binary" config --config "$scratch/$(basename "$overlay").toml" > "$scratch/config"
    grep -Eq '^ *ledger.state .*/var/lib/jwksd|state = "/var/lib/jwksd"' "$scratch/config" || { cat "$scratch/config"; fail "no state in $overlay"; }
done
"$python" .ci/deploy.d/docs.py "$scratch/sidecar.yaml"
"$tools/bin/kubernetes-validate" --strict --quiet --no-warn -k 1.29 "$scratch/sidecar.yaml"
# As the cert-manager example mounts them: two slots, two levels deep, through ..data.
certs=$scratch/certs
for slot in a b; do
    mkdir -p "$certs/..v/client/$slot"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$certs/..v/client/$slot/tls.key" \
        -out "$certs/..v/client/$slot/tls.crt" -subj "/CN=signing-key-$slot" -days 90 2> /dev/null
done
ln -s ..v "$certs/..data"
ln -s ..data/client "$certs/client"
"$binary" check --keys "$certs" --format json > "$scratch/check" || { cat "$scratch/check"; fail "the example's layout is refused"; }
[ "$("$binary" render --keys "$certs" --audience client | grep -o '"kid"' | wc -l)" = 2 ] || fail "not both slots are published"
echo "cert-manager's layout: both slots are published for their audience"

# The issuer's example: keys by the Unix socket, and a pod that is replaced, whose keys are gone.
issuer=$scratch/issuer
mkdir -p "$issuer/keys" "$issuer/state" "$issuer/run"
chown -R 65532:65532 "$issuer"
sed -e "s|/keys\"|$issuer/keys\"|; s|/var/lib/jwksd|$issuer/state|; s|/run/jwksd-admin|$issuer/run|" \
    -e "s|\[::\]:8080|127.0.0.1:$public|; s|\[::\]:9090|127.0.0.1:$ops|" \
    deploy/kubernetes/overlays/issuer/jwksd.toml > "$issuer/jwksd.toml"
signer() { env -i PATH="$PATH" setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all "$@"; }
install -m 0555 "$binary" "$issuer/jwksd"
serve_issuer() {
    # With --init, as the overlay does; by exec, so that $! is the program.
    (exec env -i PATH="$PATH" setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs \
        --bounding-set=-all "$issuer/jwksd" serve --config "$issuer/jwksd.toml" --init) 2> "$scratch/log" &
    daemon=$!
}
ask() {
    "$python" .ci/deploy.d/issue.py "$issuer/run/admin.sock"
}
told() {
    for _ in $(seq 100); do
        file=$(sed -n 's/.*"file": "\(.*\)",/\1/p' "$issuer/state/current/client.json" 2> /dev/null || true)
        if [ -n "$file" ] && signer head -c 1 "$file" > /dev/null 2>&1; then return; fi
        sleep 0.1
    done
    cat "$scratch/log"
    fail "the signer is told of no key that it can read"
}
serve_issuer
await 2
told
ask
await 3
kill -TERM "$daemon"; wait "$daemon"; daemon=
rm -rf "$issuer/keys"/*
serve_issuer
# Those of its predecessor, and a first one for each audience.
await 5
told
ask
await 6
kill -TERM "$daemon"; wait "$daemon"; daemon=
echo "issuer: its keys outlive their pod, and the next pod signs with a key of its own"
