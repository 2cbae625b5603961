step "keys in an HSM: SoftHSM"
if ! command -v softhsm2-util > /dev/null || ! command -v pkcs11-tool > /dev/null || ! command -v jq > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -qq -y --no-install-recommends softhsm2 opensc jq > /dev/null
fi
hsm=$scratch/hsm
mkdir -p "$hsm/tokens" "$hsm/keys"
export SOFTHSM2_CONF=$hsm/conf PKCS11_PIN=1234 PKCS11_MODULE=
printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$hsm/tokens" > "$SOFTHSM2_CONF"
for PKCS11_MODULE in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so; do
    [ ! -e "$PKCS11_MODULE" ] || break
done
softhsm2-util --init-token --free --label iam --so-pin 5678 --pin "$PKCS11_PIN" > /dev/null
deploy/pkcs11/new-key iam one client "$hsm/keys"
(exec env JWKSD_LIFECYCLE_PROPAGATION=3s JWKSD_PUBLISH_MAX_AGE=1s "$binary" serve --keys "$hsm/keys" --state "$hsm/state" \
    --listen "127.0.0.1:$public" --ops-listen "127.0.0.1:$ops") 2> "$scratch/log" &
daemon=$!
await 1
claims() { printf '{"sub": "me", "exp": %s}' $(($(date +%s) + 600)); }
verify() { "$binary" token verify "$1" --jwks "http://127.0.0.1:$public/.well-known/jwks.json" > /dev/null 2>&1; }
kid_of() { jq -r .keyId "$hsm/state/current/client.json"; }
for _ in $(seq 100); do [ ! -e "$hsm/state/current/client.json" ] || break; sleep 0.1; done
jq -e '.keyId == "one" and (.signer | startswith("pkcs11:token=iam;")) and (has("file") | not)' \
    "$hsm/state/current/client.json" > /dev/null || fail "the hand-off does not carry the reference"
first=$(deploy/pkcs11/sign "$hsm/state" client "$(claims)")
verify "$first" || fail "what the HSM signed is refused"
# No key comes on this disk by mistake.
if "$binary" keys rotate --audience client --keys "$hsm/keys" --state "$hsm/state" 2> "$scratch/refused"; then
    fail "a key on the disk takes over from one in the HSM"
fi
grep -q -- --software "$scratch/refused" || { cat "$scratch/refused"; fail "it is refused for another reason"; }
# The next one, of which every token is accepted.
deploy/pkcs11/new-key iam two client "$hsm/keys"
await 2
signed=0
end=$((SECONDS + 60))
while [ $SECONDS -lt $end ]; do
    kid=$(kid_of)
    token=$(deploy/pkcs11/sign "$hsm/state" client "$(claims)")
    verify "$token" || fail "a token is refused during the rotation"
    signed=$((signed + 1))
    [ "$kid" = one ] || break
done
[ "$kid" = two ] || fail "the next key does not take over"
JWKSD_ACCEPT_RISK=default_grace "$binary" keys invalidate one --grace 5s --keys "$hsm/keys" --state "$hsm/state" > /dev/null
verify "$first" || fail "a token of the key before is refused in its grace"
await 1
if verify "$first"; then fail "a token of the key before is accepted after its grace"; fi
verify "$(deploy/pkcs11/sign "$hsm/state" client "$(claims)")" || fail "the next key's token is refused"
kill -TERM "$daemon"; wait "$daemon"; daemon=
unset SOFTHSM2_CONF PKCS11_PIN PKCS11_MODULE
echo "SoftHSM: $signed tokens through a rotation by the hand-off, none refused"
