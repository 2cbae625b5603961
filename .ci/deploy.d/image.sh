step "the image"
size=$(stat -c %s "$binary")
echo "the static binary has $size bytes"
[ "$size" -lt $limit ] || fail "that is more than 14 MiB"
image=$scratch/jwksd.oci.tar
cargo cyclonedx --version > /dev/null 2>&1 ||
    cargo install --locked --quiet cargo-cyclonedx --version 0.5.9
deploy/image/build --binary "$binary" --output "$image"
"$python" - "$scratch/jwksd.cdx.json" << 'EOF' || fail "the SBOM does not name what the image is made of"
import json, sys
bom = json.load(open(sys.argv[1]))
names = {component["name"] for component in bom["components"]}
assert bom["bomFormat"] == "CycloneDX" and bom["metadata"]["component"]["name"] == "jwksd"
assert {"hyper", "tokio", "rustls", "aws-lc-rs"} <= names, names
EOF
rootfs=$scratch/rootfs
mkdir "$rootfs"
"$python" .ci/deploy.d/unpack.py "$image" "$rootfs" "$binary" $((limit + overhead))
