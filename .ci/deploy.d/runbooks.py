# Runs the commands of deploy/*.md literally: every block of shell, section by section, on a daemon to which
# has happened what the section is about. Each section has namespaces of its own, with the directories and the
# ports that the documents name. A block that can't be run says why, in a comment before it.
#
#   runbooks.py DIRECTORY       with bin/jwksd in it; needs root
import glob, os, re, subprocess, sys

DIRECTORY = os.path.realpath(sys.argv[1])
RUNBOOKS = "deploy/runbooks.md"

PRELUDE = r"""
set -euo pipefail
export PATH=@DIRECTORY@/bin:$PATH
fail() { echo "FAILED: $*"; tail -5 "$log"; exit 1; }
await() { local n; for n in $(seq 200); do if eval "$1" > /dev/null 2>&1; then return; fi; sleep 0.1; done; fail "never: $1"; }
set_of() { curl -sf http://127.0.0.1:8080/.well-known/jwks.json; }
status() { curl -sf http://127.0.0.1:9090/status; }
drop() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /etc/jwksd/keys/.new
    chmod 0640 /etc/jwksd/keys/.new
    echo "{\"keyId\": \"$2\"}" > "/etc/jwksd/keys/$1.meta.json"
    mv /etc/jwksd/keys/.new "/etc/jwksd/keys/$1.pem"
} 2> /dev/null
as_jwksd=(setpriv --reuid jwksd --regid jwksd --clear-groups)
start() { "${as_jwksd[@]}" jwksd serve --config /etc/jwksd/jwksd.toml < /dev/null > /dev/null 2>> "$log" & daemon=$!; await 'set_of'; }
stop() { kill "$daemon"; wait "$daemon" || fail "it did not end well"; }
log=$PWD/log
ip link set lo up
for file in passwd group; do cp /etc/$file etc-$file; done
echo 'jwksd:x:64321:64321::/var/lib/jwksd:/bin/sh' >> etc-passwd
echo 'jwksd:x:64321:' >> etc-group
for file in passwd group; do mount --bind etc-$file /etc/$file; done
mkdir -p etc state
mount -t tmpfs -o mode=0755 tmpfs etc
mkdir etc/keys
install -m 0644 /dev/stdin etc/jwksd.toml << 'END'
[keys]
dirs = ["/etc/jwksd/keys"]
poll_interval = "200ms"
[ledger]
state = "/var/lib/jwksd"
END
mkdir -p /etc/jwksd /var/lib/jwksd
mount --move etc /etc/jwksd
mount -t tmpfs -o size=512k,mode=0755 tmpfs /var/lib/jwksd
chown jwksd:jwksd /etc/jwksd/keys /var/lib/jwksd
chmod 2750 /etc/jwksd/keys
drop client client-2026
start
"""

# What has happened, before the block of this number; `end` is after the last one.
HAPPENED = {
    "Planned rotation": {
        2: '[ "$(jwksd keys show "$OLD" --format json | jq -r .phase)" = active ]; jwksd keys show "$NEW" --format json | jq -e "has(\\"invalidatedAt\\")"',
        "end": 'await \'[ "$(status | jq -r "[.keys[] | select(.phase == \\"announced\\")] | length")" -ge 1 ]\'',
    },
    "Compromise": {
        0: "TOKEN=$(jwksd token sign --audience client --claims '{\"sub\": \"me\"}'); jwksd token verify \"$TOKEN\" --jwks $PUBLIC/.well-known/jwks.json",
    },
    "New kids for old keys": {"end": "await 'set_of | grep client-2026 | grep client-2027'"},
    "Lost ledger": {
        0: "rm -rf /var/lib/jwksd/*",
        1: "mkdir backup; cp $KEYS/client.pem backup/; drop other other-2026; await 'set_of | grep other-2026'; stop\n"
           "rm -rf /var/lib/jwksd/* $KEYS/client.*; start; if set_of | grep client-2026; then fail 'it is known'; fi\n"
           # The last line of the block shows what the daemon has seen.
           "jwksd() { if [ \"$1 $2\" = 'keys show' ]; then await 'set_of | grep client-2026'; fi; command jwksd \"$@\"; }",
        "end": "set_of | grep -q client-2026",
    },
    "Lost key directory": {
        0: "mv $KEYS away; await 'status | jq -e \".refused | length > 0\"'",
        1: "mkdir -m 2750 $KEYS; chown jwksd:jwksd $KEYS; await 'status | jq -e \".keys[] | select(.phase == \\\"grace\\\")\"'",
    },
    "Full disk": {
        0: "dd if=/dev/zero of=$STATE/ballast bs=1k status=none || true; drop more more-2026\n"
           "await 'status | jq -e \".ledger.state == \\\"failing\\\"\"'",
        1: "rm $STATE/ballast",
    },
    "Held lock": {
        0: "\"${as_jwksd[@]}\" python3 -c 'import fcntl, os, signal; lock = open(\"/var/lib/jwksd/lock\", \"r+\"); fcntl.flock(lock, fcntl.LOCK_EX); os.kill(os.getpid(), signal.SIGSTOP)' &\n"
           "drop more more-2026; await 'status | jq -e \".ledger.detail | contains(\\\"locked by pid\\\")\"'",
    },
    "A record was set aside": {
        0: "stop; for file in $STATE/*.json $STATE/mirror/*.json; do echo damaged > $file; done; start\n"
           "await 'status | jq -e \".damagedRecords | length > 0\"'",
    },
    "Refused files": {
        0: "echo nonsense > $KEYS/nonsense.pem; await 'status | jq -e \".refused | length > 0\"'",
    },
    "The administration interface": {
        0: "stop",
        1: "await 'test -S admin.sock && set_of'",
    },
}


def sections(document):
    """Each heading with its blocks, and whether they are to be run."""
    heading, blocks, lines = "", {}, iter(open(document).read().splitlines())
    before, skipped = "", 0
    for line in lines:
        if found := re.match(r"#+ (.*)", line):
            heading = found[1]
        if found := re.match(r"( *)```sh$", line):
            indent, block = len(found[1]), []
            for line in lines:
                if line.strip() == "```":
                    break
                block.append(line[indent:])
            if before.strip().startswith("<!-- not run: "):
                skipped += 1
            else:
                blocks.setdefault(heading, []).append("\n".join(block))
        before = line
    return blocks, skipped


def script(heading, blocks, definitions):
    happened = HAPPENED.get(heading, {})
    assert all(key == "end" or key < len(blocks) for key in happened), f"{heading}: fewer blocks than expected"
    parts = [PRELUDE.replace("@DIRECTORY@", DIRECTORY), definitions]
    for number, block in enumerate(blocks):
        parts.append(happened.get(number, ""))
        if block.startswith("jwksd serve "):
            block = f"{{ {block}\n}} < /dev/null > /dev/null 2>> $log &"
        parts += [f"echo '-- block {number + 1}'", block]
    parts += [happened.get("end", ""), "echo '-- done'"]
    return "\n".join(parts)


ran = skipped_ones = 0
for document in sorted(glob.glob("deploy/*.md")):
    blocks, skipped = sections(document)
    skipped_ones += skipped
    definitions = blocks["Runbooks"][0] if document == RUNBOOKS else ""
    for heading, of_section in blocks.items():
        place = f"{DIRECTORY}/{ran}"
        os.mkdir(place)
        with open(f"{place}/script", "w") as file:
            file.write(script(heading, of_section, definitions))
        isolated = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        run = subprocess.run([*isolated, "bash", "script"], cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=180)
        if run.returncode != 0 or "-- done" not in run.stdout:
            print(run.stdout)
            sys.exit(f"{document}, {heading}: its commands do not work ({run.returncode})")
        ran += len(of_section)
        print(f"{document}, {heading}: {len(of_section)}")
print(f"{ran} blocks of commands work as they stand, {skipped_ones} say why they are not run")
