# Runs in a container that systemd booted, with the units installed: what an operator does there.
exec > /check/log 2>&1
trap 'systemctl --no-block exit 0' EXIT
set -euo pipefail
fail() { echo "FAILED: $*"; journalctl --no-pager -u jwksd | tail -20; exit 1; }
keys=/etc/jwksd/keys state=/var/lib/jwksd
jwksd=(jwksd keys)
places=(--keys $keys --state $state)
set_of() { curl -sf "http://127.0.0.1:8080${1:-}/.well-known/jwks.json"; }
published() { set_of | grep -c -F "\"kid\":\"$1\"" > /dev/null; }
kid() { python3 -c 'import json, sys; answer = json.load(sys.stdin); assert answer["served"] is True, answer; print(answer["keyId"])'; }
# A drop-in of the service, and a restart with it.
drop_in() {
    mkdir -p /etc/systemd/system/jwksd.service.d
    printf '[Service]\n%s\n' "$@" > /etc/systemd/system/jwksd.service.d/check.conf
    systemctl daemon-reload
    systemctl restart jwksd || fail "it does not start with $*"
}

[ "$(stat -c '%U:%G %a' $keys)" = "jwksd:jwksd 2750" ] || fail "the key directory is $(stat -c '%U:%G %a' $keys)"
systemctl start jwksd || fail "it does not start"
journalctl -o cat -u jwksd | grep -F '"restriction":"files"' | cut -c 1-200

# Issued as jwksd, as root, and by the service itself.
one=$(setpriv --reuid jwksd --regid jwksd --init-groups "${jwksd[@]}" issue --audience client --algorithm ES256 "${places[@]}" --format json | kid) || fail "issue as jwksd"
two=$("${jwksd[@]}" rotate --audience client "${places[@]}" --format json | kid) || fail "rotate as root"
drop_in 'Environment=JWKSD_ADMIN_LISTEN=unix:/run/jwksd/admin.sock'
three=$(curl -sf --unix-socket /run/jwksd/admin.sock http://jwksd/oauth/keys/keypair -H 'content-type: application/json' \
    -d '{"audience": "human", "algorithm": "ES256"}' | python3 -c 'import json, sys; print(json.load(sys.stdin)["keyId"])') || fail "issue by the service"
for key in "client-$one" "client-$two" "human-$three"; do
    published "${key#*-}" || fail "$key is not published"
    [ "$(stat -c '%U %a' "$keys/$key.pem")" = "jwksd 600" ] || fail "$key.pem is $(stat -c '%U %a' "$keys/$key.pem")"
done
grep -q -F "\"$keys/client-$one.pem\"" $state/current/client.json || fail "the hand-off: $(cat $state/current/client.json)"
setpriv --reuid jwksd --regid jwksd --init-groups jwksd token sign --audience client --claims '{}' "${places[@]}" > /dev/null || fail "the signer"
echo "keys are issued by jwksd, by root and by the service"

# Dropped by root.
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $keys/.new 2> /dev/null
chmod 0640 $keys/.new
mv $keys/.new $keys/dropped.pem
for _ in $(seq 100); do [ "$(set_of | grep -o '"kid"' | wc -l)" = 4 ] && break; sleep 0.1; done
[ "$(set_of | grep -o '"kid"' | wc -l)" = 4 ] || fail "the dropped key is not published"
systemctl reload jwksd || fail "reload"
echo "a key that root drops is published"

# By schedule.
drop_in 'Environment=JWKSD_ROTATION_EVERY=4s JWKSD_LIFECYCLE_PROPAGATION=1s JWKSD_PUBLISH_MAX_AGE=1s'
for _ in $(seq 200); do [ "$(set_of | grep -o '"kid"' | wc -l)" -gt 4 ] && break; sleep 0.1; done
[ "$(set_of | grep -o '"kid"' | wc -l)" -gt 4 ] || fail "no key is issued by schedule"
echo "keys rotate by schedule"

# The watchdog: it lives longer than that, and stopped it is started again.
drop_in 'WatchdogSec=2s'
sleep 5
[ "$(systemctl show -P NRestarts jwksd)" = 0 ] || fail "the watchdog ended it"
systemctl kill -s STOP jwksd
for _ in $(seq 150); do [ "$(systemctl show -P NRestarts jwksd)" = 1 ] && systemctl is-active --quiet jwksd && break; sleep 0.1; done
[ "$(systemctl show -P NRestarts jwksd)" = 1 ] || fail "the watchdog did not start it again"
echo "WatchdogSec= works"

# Socket activation: no request is lost.
for number in $(seq 100); do
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $keys/.new 2> /dev/null
    chmod 0640 $keys/.new
    mv $keys/.new "$keys/many-$number.pem"
done
systemctl stop jwksd
systemctl start jwksd.socket || fail "the socket"
python3 /check/requests.py > /check/requests &
client=$!
for _ in 1 2 3 4 5; do
    sleep 1
    systemctl restart jwksd || fail "restart with a socket"
done
touch /run/enough
wait $client || fail "requests: $(cat /check/requests)"
cat /check/requests
systemctl stop jwksd.socket jwksd
[ "$(systemctl show -P Result jwksd)" = success ] || fail "it did not end well"
echo "everything holds"
