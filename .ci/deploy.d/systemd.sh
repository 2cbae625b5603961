step "systemd"
mkdir "$scratch/units"
cp deploy/systemd/jwksd.service deploy/systemd/jwksd.socket "$scratch/units/"
# What ExecStart names is installed elsewhere here.
sed -i "s|/usr/local/bin/jwksd|$(realpath "$binary")|" "$scratch/units/jwksd.service"
systemd-analyze verify "$scratch/units/jwksd.service" "$scratch/units/jwksd.socket" 2> "$scratch/verify" || { cat "$scratch/verify"; fail "systemd-analyze verify"; }
if grep -F jwksd "$scratch/verify"; then fail "systemd-analyze verify has something to say"; fi
# In tenths: 20 is an exposure of 2.0.
systemd-analyze security --offline=yes --threshold=20 --no-pager "$scratch/units/jwksd.service" > "$scratch/security" ||
    { cat "$scratch/security"; fail "the exposure is over 2.0"; }
grep Overall "$scratch/security"
mkdir -p "$scratch/root/etc"
mkdir -p "$scratch/root/usr/lib/sysusers.d" "$scratch/root/usr/lib/tmpfiles.d"
cp deploy/systemd/jwksd.sysusers "$scratch/root/usr/lib/sysusers.d/jwksd.conf"
cp deploy/systemd/jwksd.tmpfiles "$scratch/root/usr/lib/tmpfiles.d/jwksd.conf"
printf 'root:x:0:0::/root:/bin/sh\n' > "$scratch/root/etc/passwd"
printf 'root:x:0:\n' > "$scratch/root/etc/group"
systemd-sysusers --root="$scratch/root" jwksd.conf > /dev/null 2>&1
grep -q '^jwksd:' "$scratch/root/etc/passwd" || fail "sysusers makes no user"
systemd-tmpfiles --root="$scratch/root" --create jwksd.conf
[ "$(stat -c %a "$scratch/root/etc/jwksd/keys")" = 2750 ] || fail "tmpfiles makes no key directory"

step "systemd booted in a container"
booted=$scratch/booted
cp -r .ci/deploy.d/booted "$booted"
# Root is a tmpfs there, with this machine's /usr: nothing is downloaded.
boot=(systemd-nspawn --directory=/ --volatile=yes --register=no --keep-unit --private-network --console=pipe
    --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self"
    --machine="jwksd-check-$$" --tmpfs=/usr/local/bin --bind-ro="$(realpath "$binary"):/usr/local/bin/jwksd" --bind="$booted:/check")
for file in jwksd.service:systemd/system/jwksd.service jwksd.socket:systemd/system/jwksd.socket \
    jwksd.sysusers:sysusers.d/jwksd.conf jwksd.tmpfiles:tmpfiles.d/jwksd.conf; do
    boot+=(--bind-ro="$PWD/deploy/systemd/${file%%:*}:/etc/${file#*:}")
done
# There is no network to wait for.
boot+=(--bind-ro=/dev/null:/etc/systemd/system/systemd-networkd-wait-online.service)
for file in check.service default.target; do boot+=(--bind-ro="$booted/$file:/etc/systemd/system/$file"); done
timeout 120 "${boot[@]}" --boot < /dev/null > "$scratch/boot" 2>&1 || true
if [ -e "$booted/log" ]; then
    cat "$booted/log"
    grep -qx "everything holds" "$booted/log" || fail "systemd, booted"
else
    cat "$scratch/boot"
    echo "skipped: no container can be booted here"
fi
