"""Other publishers of JWK Sets to compare jwksd with. They are built by Go as peers/*/go.sum pins them,
into target/bench-peers, once. One that can't be built or started is left out, and it is said why."""
import hashlib, json, os, re, shutil, subprocess

from servers import Server, body_of, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
BUILT = os.path.join(HERE, "../../target/bench-peers")
# One worker, as the others have.
ONE = {"GOMAXPROCS": "1"}
# What was meant to be here, and why it is not.
LEFT_OUT = {
    "dex": "as a Go module the newest release that could be had is 2.13.0, of 2018, and that does not build: it pins "
           "a revision of cockroach-go that could not be had",
    "heimdall": "it could not be had as a Go module when the others were pinned",
}


class Missing(Exception):
    """Why a publisher can't be had."""


def built(name, package):
    """The program of a package, by the module peers/`name`."""
    sources, digest = os.path.join(HERE, "peers", name), hashlib.sha256()
    for source in sorted(os.listdir(sources)):
        with open(os.path.join(sources, source), "rb") as file:
            digest.update(source.encode() + b"\0" + file.read())
    program, stamp = (os.path.abspath(os.path.join(BUILT, name + end)) for end in ("", ".sources"))
    if os.path.exists(program) and os.path.exists(stamp):
        with open(stamp) as file:
            if file.read() == digest.hexdigest():
                return program
    os.makedirs(BUILT, exist_ok=True)
    command = ["go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", program, package]
    try:
        subprocess.run(command, cwd=sources, env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}, check=True,
                       timeout=1800, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        raise Missing(f"it can't be built: {' '.join(error.stdout.decode(errors='replace').split())[-300:]}")
    except subprocess.TimeoutExpired as error:
        raise Missing(f"it was not built within {error.timeout} s")
    with open(stamp, "w") as file:
        file.write(digest.hexdigest())
    return program


def version(name, module):
    with open(os.path.join(HERE, "peers", name, "go.mod")) as file:
        return re.search(re.escape(module) + r" v(\S+)", file.read()).group(1)


def jwkset(keys, body, scratch):
    """A server made of the library as its examples are, over the same files."""
    port = free_port()
    return Server("jwkset", [built("jwkset", "."), keys, f"127.0.0.1:{port}"], port, env=ONE)


def spire(keys, body, scratch):
    """SPIRE's provider of OIDC discovery. It takes public keys, as a bundle in a file, and gives them the
    members that the others have; the rest is as it is by itself."""
    program = built("spire", "github.com/spiffe/spire/support/oidc-discovery-provider")
    port, bundle, config = free_port(), os.path.join(scratch, "bundle.json"), os.path.join(scratch, "spire.conf")
    with open(bundle, "w") as file:
        json.dump({"keys": [{**key, "use": "jwt-svid"} for key in json.loads(body)["keys"]]}, file)
    with open(config, "w") as file:
        file.write(f'log_level = "error"\ndomains = ["localhost"]\nset_key_use = true\n'
                   f'allow_insecure_scheme = true\ninsecure_addr = "127.0.0.1:{port}"\n'
                   f'file {{ path = "{bundle}" }}\n')
    return Server("SPIRE", [program, "-config", config], port, env=ONE, path="/keys")


def start(keys, body, scratch, running):
    """Every publisher by its name and version, and the size of its body, once it serves the keys that jwksd
    serves as `body`. `running` takes each server, to be ended with the others."""
    keys_in = lambda body: sorted(sorted(key.items()) for key in json.loads(body)["keys"])
    found = {}
    for name, reason in LEFT_OUT.items():
        print(f"peers    {name} is skipped: {reason}")
    for name, make, module in (("jwkset", jwkset, "github.com/MicahParks/jwkset"),
                               ("SPIRE", spire, "github.com/spiffe/spire")):
        try:
            server = running(make(keys, body, scratch))
            theirs = body_of(server)[0]
            if keys_in(theirs) != keys_in(body):
                raise Missing("it does not serve the same keys")
            found[f"{name} {version(make.__name__, module)}"] = server, len(theirs)
        except (Missing, OSError, ValueError) as error:
            print(f"peers    {name} is skipped: {error}")
        # What a server that does not come up ends with.
        except SystemExit as error:
            print(f"peers    {name} is skipped: {' '.join(str(error).split())[-300:]}")
    return found


def is_possible():
    """Whether there is what builds them; where not, it is said."""
    if not shutil.which("go"):
        print("peers    skipped: Go is needed to build them")
        return False
    return True
