step "the image"
size=$(stat -c %s "$binary")
echo "the static binary has $size bytes"
[ "$size" -lt $limit ] || fail "that is more than 10 MiB"
image=$scratch/jwksd.oci.tar
deploy/image/build --binary "$binary" --output "$image"
rootfs=$scratch/rootfs
mkdir "$rootfs"
"$python" .ci/deploy.d/unpack.py "$image" "$rootfs" "$binary" $((limit + overhead))
