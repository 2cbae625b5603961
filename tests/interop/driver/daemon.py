"""One jwksd on a private directory: its configuration, its life, its commands, and the tokens that
a signer beside it would make."""

import asyncio
import base64
import json
import signal
import socket
import ssl
import time
import urllib.request
from datetime import datetime
from pathlib import Path

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
              "EdDSA"]


def audience(algorithm):
    """Each algorithm has an audience of its own, so that each has a current key of its own."""
    return algorithm.lower()


def instant(text):
    """Seconds since the epoch of an RFC 3339 text."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def part_of(token, which):
    """The header (0) or the claims (1) of a token."""
    text = token.split(".")[which]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def free_port():
    """A port that was free a moment ago, for what can't be told to choose one itself."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Daemon:
    """The lifecycle is an ordinary one, scaled down: tokens live for seconds, not for an hour."""

    MAX_AGE = 20
    TOKEN_LIFETIME = 15

    def __init__(self, binary, directory, *, propagation, grace, authority=None):
        """With an `authority` it serves by TLS."""
        self.binary = binary
        self.keys = directory / "keys"
        self.keys.mkdir(parents=True)
        self.state = self.keys / ".jwksd"
        self.config = directory / "jwksd.toml"
        self.log = directory / "jwksd.log"
        # It is restarted where its clients look for it, so the port must be known.
        listen = f"127.0.0.1:{free_port()}"
        self.issuer = f"{'https' if authority else 'http'}://{listen}"
        self.trust = authority and ssl.create_default_context(cafile=authority.ca)
        tls = authority and (f'tls = {{ certificate = "{authority.certificate}", '
                             f'key = "{authority.key}" }}')
        self.url = self.issuer + "/.well-known/jwks.json"
        self.process = None
        self.config.write_text(f"""
[keys]
dirs = ["{self.keys}"]
audiences = {json.dumps([audience(algorithm) for algorithm in ALGORITHMS])}
default_audience = "rs256"
poll_interval = "1s"
settle = "500ms" # ten files that are written together are noticed together

[lifecycle]
propagation = "{propagation}s"
token_lifetime = "{self.TOKEN_LIFETIME}s"
clock_skew = "1s"
default_grace = "{grace}s"

[publish]
max_age = "{self.MAX_AGE}s"
issuer = "{self.issuer}"

[public]
listen = "{listen}"
{tls or ""}

[ops]
listen = "127.0.0.1:0"

[limits]
max_connections = 4096

[log]
format = "json"
""")

    async def start(self):
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.binary, "serve", "--config", self.config, stderr=log)
        deadline = time.time() + 30
        while True:
            try:
                return await asyncio.to_thread(self.served)
            except OSError:
                if time.time() > deadline or self.process.returncode is not None:
                    raise RuntimeError(f"jwksd does not serve:\n{self.log.read_text()}") from None
                await asyncio.sleep(0.05)

    async def end(self, how=signal.SIGTERM):
        if self.process and self.process.returncode is None:
            self.process.send_signal(how)
            await self.process.wait()

    def served(self):
        """The kids that are served."""
        with urllib.request.urlopen(self.url, timeout=5, context=self.trust) as response:
            return {key["kid"] for key in json.load(response)["keys"]}

    async def command(self, *arguments):
        process = await asyncio.create_subprocess_exec(
            self.binary, *arguments, "--config", self.config,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        try:
            output, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"jwksd {' '.join(arguments)}: {errors.decode()}")
        return output.decode()

    async def operation(self, *arguments):
        return json.loads(await self.command("keys", *arguments, "--format", "json"))

    async def issue_all(self):
        """A key pair for each algorithm. jwksd takes one order at a time anyway."""
        for algorithm in ALGORITHMS:
            await self.operation(
                "issue", "--audience", audience(algorithm), "--algorithm", algorithm)

    def current(self, algorithm):
        """The kid that the hand-off names for the signer; None where there is none yet."""
        path = self.state / "current" / f"{audience(algorithm)}.json"
        return json.loads(path.read_text())["keyId"] if path.exists() else None

    async def handed_off(self, old):
        """Waits until the hand-off names other keys than these."""
        deadline = time.time() + 60
        while any(self.current(algorithm) == kid for algorithm, kid in old.items()):
            if time.time() > deadline:
                raise AssertionError("the hand-off does not name the new keys")
            await asyncio.sleep(0.05)

    async def succeeded(self, old):
        """Waits until the hand-off names other keys, and tells how long the old are published."""
        await self.handed_off(old)
        listed = {key["keyId"]: key for key in await self.operation("list")}
        return {algorithm: instant(listed[kid]["publishedUntil"]) for algorithm, kid in old.items()}

    async def sign(self, algorithm, lifetime):
        """A token as the signer makes it: by the key that the hand-off names. All audiences share
        the issuer whose JWK Set holds all keys (by default each would have its own)."""
        claims = {"iss": self.issuer, "sub": "interop", "aud": audience(algorithm)}
        deadline = time.time() + 30
        while time.time() < deadline:
            before = self.current(algorithm)
            token = (await self.command(
                "token", "sign", "--audience", audience(algorithm), "--ttl", f"{lifetime}s",
                "--claims", json.dumps(claims))).strip()
            # The command decides by the ledger; on a busy machine the hand-off may come after it.
            if part_of(token, 0)["kid"] in (before, self.current(algorithm)):
                return token
        raise AssertionError(f"the hand-off does not name the key that {algorithm} signs with")

    async def drop_all(self, pems):
        """Writes a key pair for each algorithm in place, over the one that may lie there."""
        for algorithm, pem in pems.items():
            directory = self.keys / audience(algorithm)
            directory.mkdir(exist_ok=True)
            attributes = directory / "signing.meta.json"
            if not attributes.exists():
                attributes.write_text(json.dumps({"algorithm": algorithm}))
        for algorithm, pem in pems.items():
            (self.keys / audience(algorithm) / "signing.pem").write_bytes(pem)


async def generate_all():
    """A private key for each algorithm, as an operator would make it."""
    async def one(algorithm):
        kind = {"RS": ["RSA", "rsa_keygen_bits:2048"], "PS": ["RSA", "rsa_keygen_bits:2048"],
                "ES256": ["EC", "ec_paramgen_curve:P-256"],
                "ES384": ["EC", "ec_paramgen_curve:P-384"],
                "ES512": ["EC", "ec_paramgen_curve:P-521"], "EdDSA": ["ED25519"]}
        name, *options = kind.get(algorithm) or kind[algorithm[:2]]
        command = ["openssl", "genpkey", "-algorithm", name]
        for option in options:
            command += ["-pkeyopt", option]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
        pem, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed")
        return pem

    return {algorithm: await one(algorithm) for algorithm in ALGORITHMS}
