"""The clients that are servers: Envoy, Apache and kube-apiserver. A token is asked about by a request."""

import asyncio
import http.client
import json
import os
import shutil
import ssl
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from daemon import ALGORITHMS, audience, free_port

sys.path.append(str(Path(__file__).resolve().parents[2] / "fleet"))
import kube_apiserver  # noqa: E402

MODULES = Path("/usr/lib/apache2/modules")


async def status(port, path, token, timeout=90):
    """The status of one GET with a bearer token, and the reason that the answer gives."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                         f"Authorization: Bearer {token}\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode(errors="replace").partition("\r\n\r\n")
            return int(head.split()[1]), body[:200]
        finally:
            writer.close()


async def listening(process, ports, log):
    for _ in range(600):
        try:
            for port in ports:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
            return
        except OSError:
            if process.returncode is not None:
                break
            await asyncio.sleep(0.1)
    raise RuntimeError(f"it does not listen:\n{log.read_text(errors='replace')[-4000:]}")


async def front(url, context):
    """Takes TLS off, and passes the bytes on."""
    async def copy(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def serve(reader, writer):
        try:
            inner_reader, inner_writer = await asyncio.open_connection(url.hostname, url.port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


class Server:
    async def verify(self, verifier, token):
        """None where the token is accepted, else the error."""
        code, body = await status(self.ports[verifier.name], f"/{verifier.name}/", token)
        if code in (200, 401):
            return None if code == 200 else body or "401"
        raise RuntimeError(f"{type(self).__name__} answered {code}: {body}")

    async def stop(self):
        for server in getattr(self, "fronts", {}).values():
            server.close()
        if hasattr(self, "process"):
            if self.process.returncode is None:
                self.process.terminate()
            await self.process.wait()
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)


class Envoy(Server):
    """One listener; a path and a provider of jwt_authn for each verifier."""

    def __init__(self, binary, authority):
        self.binary, self.authority = binary, authority

    async def start(self, verifiers, log):
        self.directory = Path(tempfile.mkdtemp())
        port = free_port()
        self.ports = {verifier.name: port for verifier in verifiers}
        config = self.directory / "envoy.json"
        config.write_text(json.dumps(self.config(verifiers, port)))
        with log.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                self.binary, "-c", config, "--concurrency", "1", "--use-dynamic-base-id",
                "--disable-hot-restart", "--log-level", "warn", stdout=output, stderr=output)
        await listening(self.process, [port], log)

    def config(self, verifiers, port):
        def address(host, number):
            return {"socket_address": {"address": host, "port_value": number}}

        def typed(name, **members):
            return {"@type": f"type.googleapis.com/envoy.extensions.filters.{name}", **members}

        def provider(verifier):
            cache = {} if verifier.ttl is None else {"cache_duration": f"{verifier.ttl}s"}
            fetch = {"uri": verifier.url, "cluster": verifier.issuer, "timeout": "5s"}
            return {"issuer": verifier.issuer, "remote_jwks": {"http_uri": fetch, **cache}}

        jwt_authn = typed(
            "http.jwt_authn.v3.JwtAuthentication",
            providers={verifier.name: provider(verifier) for verifier in verifiers},
            rules=[{"match": {"prefix": f"/{verifier.name}/"},
                    "requires": {"provider_name": verifier.name}} for verifier in verifiers])
        manager = typed(
            "network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="interop", delayed_close_timeout="0s",
            http_filters=[{"name": "jwt_authn", "typed_config": jwt_authn},
                          {"name": "router", "typed_config": typed("http.router.v3.Router")}],
            route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]})
        def secured(url):
            if url.scheme != "https":
                return {}
            trust = {"trusted_ca": {"filename": str(self.authority.ca)},
                     "match_typed_subject_alt_names": [
                         {"san_type": "IP_ADDRESS", "matcher": {"exact": url.hostname}}]}
            context = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
                                "UpstreamTlsContext",
                       "common_tls_context": {"validation_context": trust}}
            return {"transport_socket": {"name": "tls", "typed_config": context}}

        issuers = {verifier.issuer: urlsplit(verifier.issuer) for verifier in verifiers}
        return {"static_resources": {
            "listeners": [{"name": "front", "address": address("127.0.0.1", port), "filter_chains": [
                {"filters": [{"name": "http", "typed_config": manager}]}]}],
            "clusters": [{"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
                "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": address(url.hostname, url.port)}}]}]}, **secured(url)}
                for name, url in issuers.items()]}}


class Apache(Server):
    """A private instance; a virtual host for each verifier, for the JWK Set's URL is a setting of
    the host. Its cache goes by URL, so each has a query of its own (jwksd ignores queries). It
    takes no URL but https, so each jwksd that speaks HTTP has a TLS front."""

    def __init__(self, authority):
        self.authority = authority

    async def start(self, verifiers, log):
        self.directory = Path(tempfile.mkdtemp())
        self.directory.chmod(0o755)
        self.fronts = {}
        for issuer in {verifier.issuer for verifier in verifiers}:
            if urlsplit(issuer).scheme == "http":
                self.fronts[issuer] = await front(urlsplit(issuer), self.authority.serving())
        shutil.copy(self.authority.ca, self.directory / "ca.crt")
        self.ports = {verifier.name: free_port() for verifier in verifiers}
        config = self.directory / "apache2.conf"
        config.write_text(self.config(verifiers))
        for verifier in verifiers:
            page = self.directory / "pages" / verifier.name
            page.mkdir(parents=True)
            (page / "index.html").write_text("in\n")
        with log.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                "/usr/sbin/apache2", "-f", config, "-DFOREGROUND", stdout=output, stderr=output)
        await listening(self.process, self.ports.values(), log)

    def config(self, verifiers):
        modules = ["mpm_event", "authn_core", "authz_core", "authz_user", "dir", "auth_openidc"]
        lines = [f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in modules]
        lines += [
            f"ServerRoot {self.directory}", "ServerName 127.0.0.1",
            f"PidFile {self.directory}/pid", f"DefaultRuntimeDir {self.directory}",
            "ErrorLog /dev/stderr", "LogLevel warn",
            "StartServers 1", "ThreadsPerChild 16", "MaxRequestWorkers 16", "ServerLimit 1",
            "DirectoryIndex index.html", f"OIDCCABundlePath {self.directory}/ca.crt",
        ]
        if os.getuid() == 0:
            lines += ["User www-data", "Group www-data"]
        for verifier in verifiers:
            port = self.ports[verifier.name]
            own = [] if verifier.ttl is None else [f"OIDCJWKSRefreshInterval {verifier.ttl}"]
            front = self.fronts.get(verifier.issuer)
            https = front.sockets[0].getsockname()[1] if front else urlsplit(verifier.url).port
            url = f"https://127.0.0.1:{https}{urlsplit(verifier.url).path}?{verifier.name}"
            lines += [
                f"Listen 127.0.0.1:{port}",
                f"<VirtualHost 127.0.0.1:{port}>", f"DocumentRoot {self.directory}/pages",
                f"OIDCOAuthVerifyJwksUri {url}", *own,
                "<Location />", "AuthType oauth20", "Require valid-user", "</Location>",
                "</VirtualHost>",
            ]
        return "\n".join(lines) + "\n"


class KubeApiserver(Server):
    """One API server, with an authenticator for each issuer, which it finds by discovery. (Two of one issuer
    it does not take.)"""

    def __init__(self, authority):
        self.authority = authority

    async def start(self, verifiers, log):
        self.directory = Path(tempfile.mkdtemp())
        authenticators = [{
            "issuer": {"url": verifier.issuer, "certificateAuthority": self.authority.ca.read_text(),
                       "audiences": [audience(algorithm) for algorithm in ALGORITHMS],
                       "audienceMatchPolicy": "MatchAny"},
            "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
        } for verifier in verifiers]
        config = self.directory / "authentication.json"
        config.write_text(json.dumps({"apiVersion": "apiserver.config.k8s.io/v1", "jwt": authenticators,
                                      "kind": "AuthenticationConfiguration"}))
        second = self.directory / "second.pem"
        kube_apiserver.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", second)
        self.api = kube_apiserver.ApiServer(self.directory / "api", [
            f"--authentication-config={config}", f"--service-account-key-file={second}"])
        self.second, self.found = second, set()
        self.threads, self.own = ThreadPoolExecutor(4), threading.local()
        await asyncio.to_thread(self.api.start)
        log.write_text(f"see {self.api.directory}\n")

    async def same_keys(self, binary):
        """The keys of its ServiceAccounts have the kids and the JWKs in jwksd's set that they have in its own."""
        keys = self.directory / "keys"
        keys.mkdir()
        shutil.copy(self.api.directory / "sa.pub", keys / "one.pem")
        shutil.copy(self.second, keys / "two.pem")
        process = await asyncio.create_subprocess_exec(
            binary, "render", "--keys", keys, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "JWKSD_KEYS_KEY_ID": "spki-sha256"})
        rendered = json.loads((await process.communicate())[0])["keys"]
        published = (await asyncio.to_thread(self.api.must, "GET", "/openid/v1/jwks"))["keys"]
        def ordered(keys):
            return sorted(keys, key=lambda key: key["kid"])
        if len(published) != 2 or ordered(rendered) != ordered(published):
            raise AssertionError(f"{rendered}\nis not what kube-apiserver publishes:\n{published}")

    def ask(self, token):
        """Over a connection of this thread, which is kept."""
        for _ in range(2):
            if not hasattr(self.own, "connection"):
                self.own.connection = http.client.HTTPSConnection(
                    "127.0.0.1", self.api.port, timeout=60,
                    context=ssl.create_default_context(cafile=self.api.ca))
            try:
                self.own.connection.request(
                    "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                    json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}),
                    {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
                answer = self.own.connection.getresponse()
                return answer.status, json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                self.own.connection.close()
                del self.own.connection
        raise RuntimeError("kube-apiserver does not answer")

    async def verify(self, verifier, token):
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(90):
            while True:
                known = verifier.issuer in self.found
                status, answer = await loop.run_in_executor(self.threads, self.ask, token)
                if status == 201:
                    self.found.add(verifier.issuer)
                # It looks for an issuer each 10 s, and refuses all of its tokens until it has found it.
                if known or status != 401:
                    break
                await asyncio.sleep(0.5)
        if status == 201:
            if answer["status"]["userInfo"]["username"] != "interop":
                raise AssertionError(f"kube-apiserver: wrong claims {answer}")
            return None
        if status == 401:
            return answer["message"]
        raise RuntimeError(f"kube-apiserver answered {status}: {answer}")

    async def stop(self):
        if hasattr(self, "api"):
            self.api.stop()
            self.threads.shutdown()
            shutil.rmtree(self.directory)
