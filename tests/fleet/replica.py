"""One jwksd of the fleet, with a volume, a state directory, ports and a way to the API server of its own."""

import base64
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from kube_apiserver import LIBFAKETIME, end, free_ports
from proxy import Proxy

NAMESPACE, LEDGER, ACCOUNT = "iam", "jwksd-ledger", "iam"


def new_key():
    """A PEM, and the kid by default: the thumbprint of RFC 7638."""
    pem = subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    spki = subprocess.run(["openssl", "pkey", "-pubout", "-outform", "DER"], input=pem,
                          stdout=subprocess.PIPE, check=True).stdout
    x, y = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (spki[-64:-32], spki[-32:]))
    canonical = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    kid = base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
    return pem.decode(), kid


class Volume:
    """A Secret's volume, as the kubelet's AtomicWriter keeps it."""

    def __init__(self, directory):
        self.directory, self.swaps = directory, 0
        self.directory.mkdir(parents=True)

    def write(self, files):
        self.swaps += 1
        at, data = self.directory, self.directory / "..data"
        old = os.readlink(data) if data.is_symlink() else None
        new = at / f"..2026_11_27_10_00_00.{self.swaps}"
        new.mkdir()
        for name, content in files.items():
            (new / name).write_text(content)
        (at / "..data_tmp").symlink_to(new.name)
        os.rename(at / "..data_tmp", data)
        for name in files:
            if not (at / name).is_symlink():
                (at / name).symlink_to(f"..data/{name}")
        for link in at.iterdir():
            if not link.name.startswith("..") and link.name not in files:
                link.unlink()
        if old:
            shutil.rmtree(at / old)


class Monitor(threading.Thread):
    """What a replica serves, asked every few milliseconds."""

    PAUSE = 0.008

    def __init__(self, replica):
        super().__init__(daemon=True)
        self.replica, self.over = replica, False
        self.seen = []  # (instant, kids) at each change, and None for kids while nobody answers
        self.looked = 0.0
        self.listeners = []

    def run(self):
        connection, etag = None, None
        while not self.over:
            asked = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.replica.public, timeout=2)
                connection.request("GET", "/.well-known/jwks.json", headers={"If-None-Match": etag} if etag else {})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    etag = answer.headers["ETag"]
                    self.note(asked, frozenset(key["kid"] for key in json.loads(body)["keys"]))
                elif answer.status != 304:
                    self.note(asked, None)
                if answer.headers.get("Connection", "").lower() == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException):
                connection, etag = None, None
                self.note(asked, None)
            self.looked = time.monotonic()
            time.sleep(self.PAUSE)

    def note(self, asked, kids):
        if not self.seen or self.seen[-1][1] != kids:
            self.seen.append((time.monotonic(), kids))
            for listener in self.listeners:
                listener(self.replica, kids)

    @property
    def kids(self):
        return self.seen[-1][1] if self.seen else None

    def since(self, instant):
        """Every set that was served from then on."""
        first = max((i for i, (at, _) in enumerate(self.seen) if at <= instant), default=0)
        return [(at, kids) for at, kids in self.seen[first:] if kids is not None]


class Replica:
    def __init__(self, index, binary, directory, api, in_cluster=False):
        self.index, self.binary, self.directory, self.api = index, binary, Path(directory), api
        self.name = f"replica {index}"
        self.directory.mkdir()
        self.volume = Volume(self.directory / "keys")
        self.state, self.account = self.directory / "state", self.directory / "account"
        self.account.mkdir()
        self.log = self.directory / "log"
        self.public, self.ops = free_ports(2)
        self.proxy = Proxy(api.port)
        self.in_cluster = in_cluster
        self.process, self.settings, self.offset = None, {}, None
        (self.account / "namespace").write_text(NAMESPACE)
        self.new_ca()
        self.new_token()
        self.kubeconfig = api.kubeconfig(
            self.directory / "kubeconfig", token_file=self.account / "token", ca=self.account / "ca.crt",
            server=f"https://127.0.0.1:{self.proxy.port}", namespace=NAMESPACE)
        self.monitor = Monitor(self)
        self.monitor.start()

    def put(self, name, text):
        (self.account / f".{name}").write_text(text)
        os.rename(self.account / f".{name}", self.account / name)

    def new_ca(self):
        self.put("ca.crt", self.api.ca.read_text())

    def new_token(self, token=None):
        self.put("token", token or self.api.token(NAMESPACE, ACCOUNT))

    def environment(self):
        settings = {
            "ledger_state": self.state, "public_listen": f"127.0.0.1:{self.public}",
            "ops_listen": f"127.0.0.1:{self.ops}", "keys_dirs": self.volume.directory,
            "keys_poll_interval": "2s", "log_format": "json", "keys_max_keys": 5000,
            "fleet_store": "kubernetes", "fleet_name": LEDGER, **self.settings,
        }
        if not self.in_cluster:
            settings |= {"fleet_namespace": NAMESPACE, "fleet_kubeconfig": self.kubeconfig}
        variables = {f"JWKSD_{name.upper()}": str(value) for name, value in settings.items()}
        if self.in_cluster:
            variables |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.proxy.port)}
        # A proxy of the environment is nothing for the API server.
        variables["HTTPS_PROXY"] = variables["https_proxy"] = "http://127.0.0.1:9"
        if self.offset is not None:
            variables |= {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": self.offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                          "FAKETIME_NO_CACHE": "1"}
        return {"PATH": os.environ["PATH"], **variables}

    def command(self, *arguments):
        command = [str(self.binary), *map(str, arguments)]
        if self.in_cluster:
            # As in a pod: the ServiceAccount's directory is where it always is.
            script = ("mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && "
                      'mount --bind "$1" /run/secrets/kubernetes.io/serviceaccount && shift && exec "$@"')
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "-",
                       str(self.account), *command]
        return command

    def start(self, wait=True):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command("serve"), env=self.environment(), stderr=log, stdout=log)
        deadline = time.monotonic() + 30
        while wait and self.get("/.well-known/jwks.json")[0] not in (200,):
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {self.log.read_text()[-1500:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not serve: {self.log.read_text()[-1500:]}")
            time.sleep(0.01)

    def kill(self):
        end(self.process)

    def terminate(self):
        end(self.process, signal.SIGTERM)

    def restart(self):
        self.kill()
        self.start()

    def order(self, *arguments):
        """The exit code of a key operation, and what it said."""
        done = subprocess.run(self.command("keys", *arguments, "--format", "json"), env=self.environment(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        return done.returncode, done.stdout

    def get(self, path, port=None):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port or self.public, timeout=5)
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer.status, body
        except (OSError, http.client.HTTPException):
            return 0, b""

    def status(self):
        status, body = self.get("/status", self.ops)
        return json.loads(body) if status == 200 else {}

    def fleet(self):
        return self.status().get("fleet") or {}

    def current(self):
        """The kid that the signer of this pod is told."""
        try:
            return json.loads((self.state / "current" / "client.json").read_text())["keyId"]
        except (OSError, ValueError):
            return None

    @property
    def kids(self):
        return self.monitor.kids

    def records(self):
        """What it knows of each name, without what is of this host."""
        local = {"slot", "directory", "hasPrivate", "reasons", "warnings", "safeToSignFrom", "current", "file"}
        return {(key["keyId"], key["audience"]): {name: value for name, value in key.items() if name not in local}
                for key in self.status().get("keys", [])}
