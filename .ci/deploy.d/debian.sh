step "the Debian package"
cargo deb --version > /dev/null 2>&1 || cargo install --locked --quiet cargo-deb --version 3.8.0
deploy/debian/build --binary "$binary" --output "$scratch/before.deb" --version 0.0.1
deploy/debian/build --binary "$binary" --output "$scratch/jwksd.deb"
dpkg-deb --contents "$scratch/jwksd.deb" | awk '{ print $6 }' > "$scratch/contents"
for file in usr/bin/jwksd usr/lib/systemd/system/jwksd.service usr/lib/systemd/system/jwksd.socket \
    usr/lib/sysusers.d/jwksd.conf usr/lib/tmpfiles.d/jwksd.conf usr/share/man/man1/jwksd-keys-rotate.1.gz \
    usr/share/bash-completion/completions/jwksd usr/share/zsh/vendor-completions/_jwksd \
    usr/share/fish/vendor_completions.d/jwksd.fish usr/share/doc/jwksd/copyright; do
    grep -qx "./$file" "$scratch/contents" || { cat "$scratch/contents"; fail "the package has no $file"; }
done

# In a root of its own, without systemd.
command -v debootstrap > /dev/null ||
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -qq -y --no-install-recommends debootstrap > /dev/null; } || true
debian=$scratch/debian
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2> /dev/null | grep -v security | head -n 1)
if ! debootstrap --variant=minbase stable "$debian" "$mirror" > "$scratch/debootstrap" 2>&1; then
    tail -n 3 "$scratch/debootstrap"
    echo "skipped: installing the package, for debootstrap makes no root here"
    return 0
fi
inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$debian" "$@"; }
install_deb() { cp "$scratch/$1" "$debian/jwksd.deb"; inside dpkg --install /jwksd.deb > "$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; fail "$1 is not installed"; }; }
serve_debian() {
    # What the unit starts, as the user that it names.
    unit=$debian/usr/lib/systemd/system/jwksd.service
    # shellcheck disable=SC2046
    (exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$debian" setpriv --reuid "$(sed -n 's/^User=//p' "$unit")" \
        --regid "$(sed -n 's/^Group=//p' "$unit")" --clear-groups --no-new-privs --bounding-set=-all \
        $(sed -n 's/^ExecStart=//p' "$unit") --listen "127.0.0.1:$public" --ops-listen "127.0.0.1:$ops") 2> "$scratch/log" &
    daemon=$!
    await 1
}
stop_debian() { kill -TERM "$daemon"; wait "$daemon" || fail "SIGTERM did not end it with 0"; daemon=; }
install_deb before.deb
[ "$(inside stat -c %a:%U:%G /etc/jwksd/keys)" = 2750:jwksd:jwksd ] || fail "the key directory is another's"
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$scratch/new.pem"
install -m 0640 "$scratch/new.pem" "$debian/etc/jwksd/keys/client.new"
inside chgrp jwksd /etc/jwksd/keys/client.new
mv "$debian/etc/jwksd/keys/client.new" "$debian/etc/jwksd/keys/client.pem"
serve_debian
for _ in $(seq 100); do [ ! -e "$debian/var/lib/jwksd/current/client.json" ] || break; sleep 0.1; done
first=$(cat "$debian/var/lib/jwksd/current/client.json") || fail "no signer is told its key"
stop_debian
install_deb jwksd.deb
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
inside dpkg-query --show --showformat '${Version} ${Status}\n' jwksd | grep -q "^$version.* installed\$" || fail "it is not upgraded"
serve_debian
[ "$(cat "$debian/var/lib/jwksd/current/client.json")" = "$first" ] || fail "an upgrade changes the key to sign with"
stop_debian
inside dpkg --remove jwksd > /dev/null 2>&1
[ ! -e "$debian/usr/bin/jwksd" ] && [ -e "$debian/etc/jwksd/keys/client.pem" ] || fail "a removal takes too little, or too much"
inside dpkg --purge jwksd > /dev/null 2>&1
[ -e "$debian/etc/jwksd/keys/client.pem" ] && [ -e "$debian/var/lib/jwksd/lock" ] || fail "a purge takes keys, or the memory of ended ones"
rm "$debian/etc/jwksd/keys/client.pem"
install_deb jwksd.deb
inside dpkg --purge jwksd > /dev/null 2>&1
for left in etc/jwksd var/lib/jwksd usr/share/doc/jwksd; do
    [ ! -e "$debian/$left" ] || fail "a purge leaves $left"
done
echo "the package: installed, started without systemd, upgraded, removed and purged"
