"""A real kube-apiserver with etcd, on loopback, without a container engine.

    python3 tests/fleet/kube_apiserver.py build     prints the folder of the binaries

The server is built from the Go proxy by what kube-apiserver/go.sum pins, once: into $KUBE_APISERVER_CACHE, or
target/kube. etcd is Debian's. Cold that takes ten minutes on two cores; what can't be had is said."""

import base64
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("KUBE_APISERVER_CACHE") or ROOT / "target" / "kube").absolute()
SERVER, ETCD = CACHE / "kube-apiserver", CACHE / "etcd" / "usr" / "bin" / "etcd"
GOTTEN = HERE / "kube-apiserver"
LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
# For certificates that are good under a clock that is an hour behind, too.
YESTERDAY = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": "-1d"} if LIBFAKETIME else {}


class Missing(Exception):
    """What a real API server needs, and can't be had here."""


def run(*command, directory=None, **environment):
    result = subprocess.run([str(part) for part in command], cwd=directory, text=True,
                            env={**os.environ, **environment},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        raise Missing(f"{' '.join(map(str, command))}: {result.stdout.strip()[-600:]}")
    return result.stdout


def build():
    """The binaries, built where they are not there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    pins = (GOTTEN / "go.sum").read_text()
    stamp = CACHE / "go.sum"
    if not SERVER.exists() or not stamp.exists() or stamp.read_text() != pins:
        if not shutil.which("go"):
            raise Missing("Go is needed to build kube-apiserver")
        print("building kube-apiserver (ten minutes, once)", file=sys.stderr, flush=True)
        # By its version clients decide whether they get on with it.
        version = re.search(r"k8s.io/kubernetes (v(\d+)\.(\d+)\.\S+)", (GOTTEN / "go.mod").read_text())
        flags = ["-s", "-w"]
        for name, value in zip(("gitVersion", "gitMajor", "gitMinor"), version.groups()):
            flags.append(f"-X k8s.io/component-base/version.{name}={value}")
        run("nice", "go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={' '.join(flags)}",
            "-o", SERVER, "k8s.io/kubernetes/cmd/kube-apiserver", directory=GOTTEN)
        stamp.write_text(pins)
    if not ETCD.exists():
        if not shutil.which("dpkg"):
            raise Missing("Debian's etcd-server is needed")
        try:
            run("apt-get", "download", "-qq", "etcd-server", directory=CACHE)
        except Missing:
            run("apt-get", "update", "-qq")
            run("apt-get", "download", "-qq", "etcd-server", directory=CACHE)
        (package, *_) = CACHE.glob("etcd-server_*.deb")
        run("dpkg", "-x", package, CACHE / "etcd")
    return CACHE


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end(process, how=signal.SIGKILL):
    if process and process.poll() is None:
        process.send_signal(how)
        process.wait()


AUDIT = {
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]}, {"level": "None"}],
}


class ApiServer:
    """kube-apiserver and its etcd. `audited` counts what is asked of Secrets."""

    def __init__(self, directory, flags=(), authorization="RBAC"):
        build()
        self.directory, self.flags = Path(directory), list(flags)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self.etcd_port, peer = free_ports(3)
        self.peer, self.authorization = peer, authorization
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca, self.audit = self.directory / "ca.crt", self.directory / "audit.log"
        self.admin = secrets.token_hex(16)
        (self.directory / "tokens.csv").write_text(f'{self.admin},admin,admin,"system:masters"\n')
        (self.directory / "audit.json").write_text(json.dumps(AUDIT))
        run("openssl", "genrsa", "-out", "sa.key", "2048", directory=self.directory)
        run("openssl", "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub", directory=self.directory)
        self.new_ca()
        self.etcd = self.server = None

    def new_ca(self):
        """Another certificate authority, and another certificate by it. The server notices by itself."""
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-days", "2"]
        at = self.directory
        run(*new, "-subj", f"/CN=fleet-{secrets.token_hex(4)}", "-keyout", "ca.key", "-out", "ca.crt",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", directory=at, **YESTERDAY)
        run(*new, "-subj", "/CN=kube-apiserver", "-keyout", "new.key", "-out", "new.crt", "-CA", "ca.crt",
            "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE", "-addext",
            "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost,DNS:kubernetes.default.svc",
            "-addext", "extendedKeyUsage=serverAuth", directory=at, **YESTERDAY)
        os.rename(at / "new.key", at / "server.key")
        os.rename(at / "new.crt", at / "server.crt")

    def start(self):
        self.start_etcd()
        self.start_server()

    def start_etcd(self):
        peer, client = f"http://127.0.0.1:{self.peer}", f"http://127.0.0.1:{self.etcd_port}"
        with (self.directory / "etcd.log").open("ab") as log:
            self.etcd = subprocess.Popen(
                [ETCD, "--data-dir", self.directory / "etcd", "--listen-client-urls", client,
                 "--advertise-client-urls", client, "--listen-peer-urls", peer,
                 "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
                 "--unsafe-no-fsync"], stdout=log, stderr=log, env={**os.environ, "ETCD_UNSUPPORTED_ARCH": ""})

    def start_server(self):
        with (self.directory / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [SERVER, f"--etcd-servers=http://127.0.0.1:{self.etcd_port}", "--bind-address=127.0.0.1",
                 f"--secure-port={self.port}", "--tls-cert-file=server.crt", "--tls-private-key-file=server.key",
                 "--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=sa.pub",
                 "--service-account-signing-key-file=sa.key", "--api-audiences=https://kubernetes.default.svc",
                 f"--authorization-mode={self.authorization}", "--token-auth-file=tokens.csv",
                 "--service-cluster-ip-range=10.99.0.0/16", "--endpoint-reconciler-type=none",
                 "--audit-policy-file=audit.json", f"--audit-log-path={self.audit}", *self.flags],
                cwd=self.directory, stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "2"})
        deadline = time.monotonic() + 120
        while not self.ready():
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"kube-apiserver: {(self.directory / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def ready(self):
        try:
            return self.ask("GET", "/readyz", timeout=2)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill_server(self):
        end(self.server)

    def stop(self):
        end(self.server)
        end(self.etcd)

    def ask(self, method, path, body=None, token=None, timeout=20, media="application/json"):
        """Status and body of one request, by default as the administrator's."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=timeout, context=ssl.create_default_context(cafile=self.ca))
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {
                "Authorization": f"Bearer {token or self.admin}", "Content-Type": media})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")

    def must(self, method, path, body=None, allowed=(), **more):
        status, answer = self.ask(method, path, body, **more)
        if status >= 300 and status not in allowed:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer

    def namespace(self, name):
        self.must("POST", "/api/v1/namespaces", {"metadata": {"name": name}}, allowed=[409])

    def token(self, namespace, account, seconds=3600):
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = self.must("POST", path, {"spec": {"expirationSeconds": seconds}})
        return answer["status"]["token"]

    def short_token(self, namespace, account, seconds):
        """A token that lives for less than the API server would give, signed by its own key."""
        uid = self.must("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}")["metadata"]["uid"]
        now = int(time.time())
        claims = {"iss": "https://kubernetes.default.svc", "aud": ["https://kubernetes.default.svc"],
                  "sub": f"system:serviceaccount:{namespace}:{account}", "iat": now, "nbf": now, "exp": now + seconds,
                  "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}}}
        def part(value):
            return base64.urlsafe_b64encode(value).rstrip(b"=")
        signed = part(json.dumps({"alg": "RS256", "typ": "JWT"}).encode()) + b"." + part(json.dumps(claims).encode())
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.directory / "sa.key"],
                                   input=signed, stdout=subprocess.PIPE, check=True).stdout
        return (signed + b"." + part(signature)).decode()

    def kubeconfig(self, path, *, token=None, token_file=None, server=None, ca=None, namespace="default"):
        user = {"tokenFile": str(token_file)} if token_file else {"token": token or self.admin}
        cluster = {"server": server or self.url, "certificate-authority": str(ca or self.ca)}
        Path(path).write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "fleet",
            "clusters": [{"name": "fleet", "cluster": cluster}], "users": [{"name": "fleet", "user": user}],
            "contexts": [{"name": "fleet", "context": {"cluster": "fleet", "user": "fleet", "namespace": namespace}}],
        }))
        return path

    def compact(self):
        """Forgets every version but the newest: who asks for an older one gets 410."""
        def etcd(path, body):
            connection = http.client.HTTPConnection("127.0.0.1", self.etcd_port, timeout=10)
            connection.request("POST", path, json.dumps(body))
            answer = json.loads(connection.getresponse().read())
            connection.close()
            return answer
        revision = etcd("/v3/kv/range", {"key": base64.b64encode(b"/").decode()})["header"]["revision"]
        etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    def snapshot(self):
        """Copies etcd's data, for `restore`."""
        shutil.rmtree(self.directory / "backup", ignore_errors=True)
        end(self.etcd, signal.SIGTERM)
        shutil.copytree(self.directory / "etcd", self.directory / "backup")
        self.start_etcd()

    def restore(self):
        """Puts the copy back: resource versions begin anew from there."""
        end(self.server)
        end(self.etcd)
        shutil.rmtree(self.directory / "etcd")
        shutil.copytree(self.directory / "backup", self.directory / "etcd")
        self.start_etcd()
        self.start_server()

    def audited(self, since):
        """What was asked of Secrets since an instant: (user, verb, name) and how often."""
        counts, seen = {}, set()
        for line in self.audit.read_text().splitlines():
            event = json.loads(line)
            if event["auditID"] in seen:  # a watch begins and ends
                continue
            seen.add(event["auditID"])
            asked = datetime.fromisoformat(event["requestReceivedTimestamp"].replace("Z", "+00:00"))
            if asked.timestamp() >= since:
                key = (event["user"]["username"], event["verb"], event["objectRef"].get("name", ""))
                counts[key] = counts.get(key, 0) + 1
        return counts


if __name__ == "__main__":
    try:
        print(build())
    except Missing as missing:
        sys.exit(f"skipped: no API server can be had: {missing}")
