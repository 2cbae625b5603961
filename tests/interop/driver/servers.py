"""The clients that are servers: Envoy and Apache. A token is asked about by a request."""

import asyncio
import json
import os
import shutil
import ssl
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from daemon import free_port

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
