"""The clients: what each is, what its cache is documented to do, and how to ask it about a token.
Those numbers are what the scenarios assert."""

import asyncio
import itertools
import json
import os
from dataclasses import dataclass, field

import servers

# The lifetime that caches get whose own is too long to be waited for.
TTL = 10


@dataclass(frozen=True)
class Cache:
    """What a client's cache is documented to do, in seconds."""

    lag: float  # until a new kid is accepted, at most
    trust: float  # for how long a removed kid still is, at most
    note: str = ""
    # Whether it has to meet an unknown kid before it lets go of a removed one.
    until_miss: bool = False
    # How long it trusts a key that is taken back without notice, at most. By default as long as it
    # may, or until it has fetched the key that signs instead.
    revoked: float | None = None
    # Whether known kids stay accepted while jwksd is away for longer than TTL.
    survives: bool = True


@dataclass(frozen=True)
class Client:
    name: str
    title: str
    make: object
    defaults: Cache  # as it comes
    short: Cache | None  # with its own option for a lifetime of TTL
    refuses: frozenset = field(default_factory=frozenset)  # algorithms that it does not know
    https: bool = False  # whether it takes issuers by https alone
    one_cache: bool = False  # whether a running program has no more than one cache of an issuer


@dataclass(frozen=True)
class Verifier:
    """One cache of a client: a JWK Set, and the lifetime for it, if not the client's default."""

    name: str
    issuer: str
    url: str
    ttl: float | None

    def request(self):
        return {"verifier": self.name, "issuer": self.issuer, "url": self.url, "ttl": self.ttl}


class Program:
    """A client that is a program of ours around a library: JSON lines in, JSON lines out."""

    def __init__(self, *command, directory=None, environment=None):
        self.command, self.directory = command, directory
        self.environment = environment or {}
        self.ids = itertools.count()
        self.waiting = {}

    async def start(self, _verifiers, log):
        with log.open("wb") as stderr:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, cwd=self.directory, env={**os.environ, **self.environment},
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
                limit=1 << 20)
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        while line := await self.process.stdout.readline():
            answer = json.loads(line)
            waiting = self.waiting.pop(answer["id"])
            if not waiting.done():
                waiting.set_result(answer)
        for waiting in self.waiting.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError(f"{self.command[0]} ended"))

    async def verify(self, verifier, token):
        """None where the token is accepted, else the error."""
        request = {"id": next(self.ids), **verifier.request(), "token": token}
        self.waiting[request["id"]] = answer = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        await self.process.stdin.drain()
        # Not wait_for: it may lose a cancellation (in Python 3.11).
        async with asyncio.timeout(90):
            answer = await answer
        if answer["ok"] and answer["claims"]["sub"] != "interop":
            raise AssertionError(f"{self.command}: wrong claims {answer['claims']}")
        return None if answer["ok"] else answer["error"]

    async def stop(self):
        if hasattr(self, "process"):
            self.reader.cancel()
            if self.process.returncode is None:
                # A browser ends with its program, which ends with its input.
                self.process.stdin.close()
                try:
                    async with asyncio.timeout(5):
                        await self.process.wait()
                except TimeoutError:
                    self.process.kill()
            await self.process.wait()


def all_clients(here, built):
    """Every client; `here` holds their sources and `built` what was installed."""
    node = built / "node"
    python = built / "python" / "bin" / "python"
    java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-cp",
            f"{built / 'java' / 'classes'}:{built / 'java' / 'libs'}/*", "Interop"]

    def script(name):
        return lambda _: Program("node", node / name, directory=node)

    def module(name):
        return lambda _: Program(python, here / "python" / name,
                                 environment={"PYTHONDONTWRITEBYTECODE": "1"})

    def go(name):
        return lambda _: Program(built / "go" / "clients", name)

    no_eddsa = frozenset({"EdDSA"})
    return [
        Client("jose", "Node jose (createRemoteJWKSet)", script("jose.mjs"),
               Cache(30, 600, "600 s; unknown kid: 30 s after the last fetch"),
               Cache(TTL, TTL, "cacheMaxAge", survives=False)),
        # What it fetches comes out of the browser's cache for max-age, 20 s here.
        Client("browser", "jose in Chromium, another origin", script("browser.mjs"),
               Cache(30, 600, "600 s and max-age; unknown kid: 30 s after the last fetch, or max-age"),
               Cache(20 + TTL, TTL, "cacheMaxAge", revoked=20 + TTL, survives=False)),
        Client("jwks-rsa", "Node jwks-rsa", script("jwks-rsa.mjs"),
               Cache(0, 600, "600 s for each kid; unknown kid: at once", revoked=600),
               Cache(0, TTL, "cacheMaxAge", revoked=TTL, survives=False)),
        Client("pyjwt", "Python PyJWT (PyJWKClient)", module("pyjwt.py"),
               Cache(30, 300, "300 s; unknown kid: 30 s after the last fetch"),
               Cache(TTL, TTL, "lifespan", survives=False)),
        Client("cryptojwt", "Python cryptojwt (KeyBundle)", module("cryptojwt_bundle.py"),
               Cache(300, 300, "300 s; unknown kid: nothing"),
               Cache(TTL, TTL, "cache_time")),
        Client("joserfc", "Python joserfc behind CacheControl", module("joserfc_http.py"),
               Cache(20, 0, "Cache-Control, 20 s here", revoked=20, survives=False), None),
        Client("go-oidc", "Go coreos/go-oidc", go("go-oidc"),
               Cache(0, 0, "no lifetime; unknown kid: at once", until_miss=True), None),
        Client("jwx", "Go lestrrat-go/jwx (jwk.Cache)", go("jwx"),
               Cache(1800, 1800, "Cache-Control, at least 15 min"),
               Cache(20 + TTL, 20 + TTL, "WithMinInterval")),
        Client("keyfunc", "Go MicahParks/keyfunc", go("keyfunc"),
               # What a fetch may take includes the wait for its turn, so that it may fail at its turn.
               Cache(600, 3600, "1 h; unknown kid: once in 5 min, and that may fail"),
               Cache(TTL, TTL, "RefreshInterval")),
        Client("nimbus", "Java Nimbus JOSE+JWT", lambda _: Program(*java, "nimbus"),
               Cache(30, 300, "5 min; unknown kid: twice in 30 s"),
               Cache(TTL, TTL, "cache, refreshAheadCache, rateLimited", survives=False)),
        Client("spring", "Java Spring Security (NimbusJwtDecoder)", lambda _: Program(*java, "spring"),
               Cache(0, 300, "5 min; unknown kid: at once"),
               Cache(0, TTL, "cache", survives=False), refuses=no_eddsa),
        # For an unknown kid it fetches in the background: the first token of one is refused.
        Client("kafka", "Kafka (BrokerJwtValidator)", lambda _: Program(*java, "kafka"),
               Cache(3600, 3600, "1 h; unknown kid: at once, but not for the token that brings it",
                     until_miss=True),
               Cache(TTL, TTL, "sasl.oauthbearer.jwks.endpoint.refresh.ms")),
        # With max-age below its cool-down, that never matters.
        Client("libjwt", "C libjwt", lambda _: Program(built / "c" / "libjwt"),
               Cache(20, 0, "Cache-Control, 20 s here; unknown kid: 60 s after the last fetch",
                     revoked=20), None),
        Client("rust", "Rust jsonwebtoken", lambda _: Program(built / "rust" / "debug" / "interop"),
               Cache(10, 600, "ours: 600 s; unknown kid: 10 s after the last fetch"),
               Cache(TTL, TTL, "ours", survives=False), refuses=frozenset({"ES512"})),
        Client("envoy", "Envoy (jwt_authn, remote_jwks)",
               lambda authority: servers.Envoy(built / "python" / "bin" / "envoy", authority),
               Cache(600, 600, "600 s; unknown kid: nothing"),
               Cache(TTL, TTL, "cache_duration", survives=False)),
        Client("apache", "Apache (mod_auth_openidc)", servers.Apache,
               Cache(0, 3600, "3600 s, at least 300 s; unknown kid: at once"), None,
               refuses=no_eddsa),
        Client("kube-apiserver", "kube-apiserver (structured authentication)", servers.KubeApiserver,
               # It remembers for 10 s, too, that it accepted a token.
               Cache(0, 0, "no lifetime; unknown kid: from 30 s before max-age is over", until_miss=True,
                     revoked=10), None,
               refuses=no_eddsa, https=True, one_cache=True),
    ]
