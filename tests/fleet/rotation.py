"""Five replicas that rotate by schedule into the Secret that their volumes come from, while whichever of them
is at work is killed."""

import base64
import json
import threading
import time

from kube_apiserver import end
from replica import ACCOUNT, NAMESPACE, Replica
from world import RBAC

KEYS = "iam-signing-keys"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/{KEYS}"
SETTINGS = {
    "issue_secret": KEYS, "rotation_every": "8s", "rotation_algorithm": "ES256",
    "lifecycle_propagation": "2s", "lifecycle_token_lifetime": "1s", "lifecycle_clock_skew": "2s",
    "lifecycle_default_grace": "4s", "publish_max_age": "1s", "keys_poll_interval": "500ms",
    "fleet_quiet": "3s",
}


class Deliveries(threading.Thread):
    """Brings the Secret's files to each volume a little later, and notes which pairs there ever were."""

    SLOWEST = 0.8

    def __init__(self, world, replicas):
        super().__init__(daemon=True)
        self.world, self.replicas, self.over = world, replicas, False
        self.stems, self.most, self.version = set(), 0, None

    def run(self):
        while not self.over:
            try:
                secret = self.world.api.must("GET", SECRET)
            except (OSError, RuntimeError):
                time.sleep(0.05)
                continue
            if secret["metadata"]["resourceVersion"] != self.version:
                self.version = secret["metadata"]["resourceVersion"]
                data = secret.get("data") or {}
                files = {name: base64.b64decode(value).decode() for name, value in data.items()}
                stems = {name[:-4] for name in files if name.endswith(".pem")}
                self.stems |= stems
                self.most = max(self.most, len(stems))
                self.world.tell(f"the Secret has {sorted(stems)}")
                for replica in self.replicas:
                    delay = self.world.random.uniform(0, self.SLOWEST)
                    self.world.kubelet.deliver(replica, files, delay)
            time.sleep(0.02)

    def successors(self):
        """The stems of those that followed a key, by that key."""
        found = {}
        for stem in self.stems:
            if "-after-" in stem:
                found.setdefault(stem.split("-after-")[1][:43], set()).add(stem)
        return found


class Verifier(threading.Thread):
    """Presents a token of each signer at each replica, again and again."""

    def __init__(self, world, replicas):
        super().__init__(daemon=True)
        self.world, self.replicas, self.over = world, replicas, False
        self.tokens, self.refused, self.without = 0, 0, 0

    def run(self):
        while not self.over:
            for signer in self.replicas:
                kid = signer.current()
                if kid is None:
                    self.without += 1
                    self.world.tell(f"{signer.index} has no key to sign with")
                for verifier in self.replicas if kid else ():
                    status, body = verifier.get("/.well-known/jwks.json")
                    if status != 200:
                        continue  # nobody is asked there just now
                    self.tokens += 1
                    if kid not in {key["kid"] for key in json.loads(body)["keys"]}:
                        self.refused += 1
                        self.world.tell(f"refused: {kid} of {signer.index} at {verifier.index}")
            time.sleep(0.01)


def play(world, kills):
    api = world.api
    for replica in world.replicas:
        replica.kill()
    rights = {"metadata": {"name": KEYS}, "rules": [{
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": [KEYS], "verbs": ["get", "update"]}]}
    api.must("POST", f"{RBAC}/roles", rights, allowed=[409])
    api.must("POST", f"{RBAC}/rolebindings", {
        "metadata": {"name": KEYS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": KEYS},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]}, allowed=[409])
    api.must("DELETE", SECRET, allowed=[404])
    fifth = Replica(len(world.replicas), world.replicas[0].binary, world.directory / "fifth", api)
    replicas = [*world.replicas, fifth]
    world.replicas.append(fifth)
    try:
        return rotate(world, replicas, kills)
    finally:
        world.replicas.remove(fifth)
        fifth.kill()
        fifth.monitor.over = True


def rotate(world, replicas, kills):
    world.fresh(**SETTINGS)
    files = {name: base64.b64encode(text.encode()).decode() for name, text in world.version().items()}
    world.api.must("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": KEYS}, "data": files})
    deliveries = Deliveries(world, replicas)
    deliveries.start()
    at_work = []
    verifier = Verifier(world, replicas)
    verifier.start()
    # Whoever asks for the Secret of keys makes a connection for it.
    for replica in replicas:
        replica.proxy.accepted = lambda one=replica: at_work.append(one)
    killed, deadline = 0, time.monotonic() + 60 + 12 * kills
    began, periods = time.monotonic(), 0
    while killed < kills and time.monotonic() < deadline and len(world.failures) < 10:
        at_work.clear()
        while not at_work and time.monotonic() < deadline:
            time.sleep(0.001)
        if not at_work:
            break
        replica = at_work[0]
        time.sleep(world.random.uniform(0, 0.12))
        world.tell(f"kill replica {replica.index}, which is at work")
        end(replica.process)
        killed += 1
        time.sleep(world.random.uniform(0, 1))
        try:
            replica.start()
        except RuntimeError as error:
            world.fail(f"rotation: {error}")
        # What it asks for at its start is not yet work.
        time.sleep(0.7)
        periods = len(deliveries.successors())
    # One more period, in which nobody dies.
    before = len(deliveries.successors())
    world.until("a rotation without a death", 40, lambda: len(deliveries.successors()) > before)
    world.until("all sign by the same key", 20,
                lambda: len({r.current() for r in replicas}) == 1 and replicas[0].current())
    # Every key ends for its successor, but the last one and the one before it.
    def active():
        keys = [key for replica in replicas for (_, audience), key in replica.records().items()]
        return {key["keyId"] for key in keys if key["phase"] == "active"}
    world.until("the keys before have ended", 20, lambda: len(active()) == 1)
    verifier.over = deliveries.over = True
    verifier.join()
    deliveries.join()
    for replica in replicas:
        replica.proxy.accepted = None
    found = deliveries.successors()
    for before, stems in found.items():
        if len(stems) > 1:
            world.fail(f"rotation: {before} has {len(stems)} successors: {sorted(stems)}")
    others = {stem for stem in deliveries.stems if "-after-" not in stem}
    if len(others) > 1:
        world.fail(f"rotation: pairs that follow nobody: {sorted(others)}")
    if verifier.without:
        world.fail(f"rotation: a replica had no key to sign with, {verifier.without} times")
    if verifier.refused:
        world.fail(f"rotation: {verifier.refused} of {verifier.tokens} tokens were refused")
    if deliveries.most > 5:
        world.fail(f"rotation: {deliveries.most} pairs lay in the Secret at once")
    if killed < kills:
        world.fail(f"rotation: {killed} of {kills} kills, {periods} periods in {time.monotonic() - began:.0f} s")
    return (f"{killed} of those at work killed in {len(found)} periods, one successor each; "
            f"{verifier.refused} of {verifier.tokens} tokens refused")
