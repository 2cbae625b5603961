step "the commands of the runbooks, as they stand"
command -v jq > /dev/null || { apt-get update -qq; apt-get install -qq -y --no-install-recommends jq > /dev/null; }
mkdir -p "$scratch/runbooks/bin"
install -m 0755 "$binary" "$scratch/runbooks/bin/jwksd"
python3 .ci/deploy.d/runbooks.py "$scratch/runbooks" || fail "a runbook"
