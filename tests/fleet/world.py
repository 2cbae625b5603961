"""Four replicas, their Secret of keys, and what each of them must publish."""

import heapq
import json
import random
import shutil
import threading
import time
from pathlib import Path

from kube_apiserver import ApiServer
from replica import ACCOUNT, LEDGER, NAMESPACE, Replica, new_key

SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/{LEDGER}"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
# Within which connected replicas publish alike.
ALIKE = 1.0
MERGE = "application/merge-patch+json"


class Kubelet(threading.Thread):
    """Delivers versions of the Secret to each volume at their time, in order."""

    def __init__(self):
        super().__init__(daemon=True)
        self.due, self.count, self.changed = [], 0, threading.Condition()
        self.newest = {}

    def deliver(self, replica, files, delay):
        with self.changed:
            self.count += 1
            heapq.heappush(self.due, (time.monotonic() + delay, self.count, replica, files))
            self.changed.notify()

    def run(self):
        while True:
            with self.changed:
                while not self.due or self.due[0][0] > time.monotonic():
                    self.changed.wait(self.due[0][0] - time.monotonic() if self.due else None)
                _, number, replica, files = heapq.heappop(self.due)
                if number < self.newest.get(replica, 0):
                    continue  # a newer version is there already
                self.newest[replica] = number
            replica.volume.write(files)

    def wait(self):
        """Until everything is delivered, but what a newer version has overtaken."""
        while True:
            with self.changed:
                if all(number < self.newest.get(replica, 0) for _, number, replica, _ in self.due):
                    return
            time.sleep(0.02)


class Keys:
    """Key pairs made ahead, since making one takes longer than telling a fleet of it."""

    def __init__(self):
        self.ready, self.numbers = [], 0

    def prepare(self, count):
        while len(self.ready) < count:
            self.ready.append(new_key())

    def take(self):
        self.prepare(1)
        self.numbers += 1
        return f"k{self.numbers}", *self.ready.pop()


class World:
    def __init__(self, binaries, directory, seed, clocks):
        self.clocks = clocks  # whether a replica can have another clock
        self.random = random.Random(seed)
        self.failures, self.lock = [], threading.Lock()
        self.directory = Path(directory)
        self.api = ApiServer(self.directory / "api")
        self.api.start()
        self.api.namespace(NAMESPACE)
        self.api.must("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
        self.api.must("POST", f"{RBAC}/roles", {"metadata": {"name": LEDGER}, "rules": [{
            "apiGroups": [""], "resources": ["secrets"], "resourceNames": [LEDGER],
            "verbs": ["get", "list", "watch", "update", "patch"]}]})
        self.grant()
        self.new_secret()
        self.replicas = [
            Replica(index, binaries[index % len(binaries)], self.directory / f"replica{index}", self.api,
                    in_cluster=index == 3) for index in range(4)]
        self.reset()
        for replica in self.replicas:
            replica.monitor.listeners.append(self.judge)
        self.kubelet = Kubelet()
        self.kubelet.start()
        self.keys = Keys()

    def reset(self):
        with self.lock:
            self.files = {}  # the Secret's: stem -> (pem, kid)
            self.ended = {}  # kid -> instant of the order
            self.obeyed = {}  # (kid, replica) -> since when it is not served there
            self.unsure = set()  # kids of which an order may or may not have been carried out
            self.ever = set()  # kids that were served somewhere
            self.served = {replica: set() for replica in getattr(self, "replicas", [])}
            self.removed = set()  # kids whose files were taken out
            self.astray = set()  # replicas with another clock
            self.alone = {}  # replica -> until when it may be without the API server
            self.slowest = 10  # seconds until a version is delivered everywhere
            self.watched = None  # the on_removal under which what is served must go on
            self.story = []

    def tell(self, what):
        line = f"{time.monotonic():.3f} {what}"
        self.story.append(line)
        with (self.directory / "story").open("a") as story:
            story.write(line + "\n")

    def fail(self, what):
        self.tell(f"FAILED {what}")
        if len(self.failures) < 200:
            self.failures.append(what)

    # The API's objects

    def grant(self):
        self.api.must("POST", f"{RBAC}/rolebindings", {
            "metadata": {"name": LEDGER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": LEDGER},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]}, allowed=[409])

    def revoke(self):
        self.api.must("DELETE", f"{RBAC}/rolebindings/{LEDGER}", allowed=[404])

    def new_secret(self):
        self.api.must("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": LEDGER}}, allowed=[409])

    def secret(self):
        return self.api.must("GET", SECRET)

    def records(self):
        return {name for name in self.secret().get("data") or {} if name.startswith("key.")}

    # A new beginning, and changes

    def fresh(self, **settings):
        """Every replica with an empty state, an empty ledger, and one key that all of them have."""
        for replica in self.replicas:
            replica.kill()
            replica.proxy.set("pass")
        with self.kubelet.changed:
            self.kubelet.due.clear()
        self.api.must("DELETE", SECRET, allowed=[404])
        self.new_secret()
        self.reset()
        name, pem, kid = self.keys.take()
        self.files = {name: (pem, kid)}
        for replica in self.replicas:
            replica.settings = {"fleet_quiet": "3s", "fleet_start_patience": "5s", **settings}
            self.forget(replica)
            replica.volume.write(self.version())
        for replica in self.replicas:
            replica.start(wait=False)
        for replica in self.replicas:
            self.until(f"{replica.name} serves", 20, lambda one=replica: one.kids)
        self.until("the fleet is connected", 10, lambda: all(r.fleet().get("connected") for r in self.replicas))
        self.until("all publish the first key", 5, self.alike)

    def forget(self, replica):
        shutil.rmtree(replica.state, ignore_errors=True)
        with self.lock:
            self.served[replica] = set()

    def version(self):
        return {f"{name}.pem": pem for name, (pem, _) in self.files.items()}

    def deliver(self, first, delays=None):
        """The Secret as it is now: to one replica at once, to the others up to 10 s later."""
        for replica in self.replicas:
            delay = 0 if replica is first else self.random.uniform(0, self.slowest) if delays is None else delays
            self.kubelet.deliver(replica, self.version(), delay)

    def drop(self, first, delays=None):
        name, pem, kid = self.keys.take()
        self.files[name] = (pem, kid)
        self.tell(f"drop {kid} first at {first.index}")
        self.deliver(first, delays)
        return kid

    def end_by_order(self, replica, kid):
        """`keys invalidate --now`; whether it is certain that it was recorded."""
        self.tell(f"order at {replica.index}: {kid} ends")
        with self.lock:
            self.unsure.add(kid)
        code, said = replica.order("invalidate", kid, "--now")
        self.tell(f"order at {replica.index}: {kid} ends: {code} {said[-200:] if code else ''}")
        if code in (0, 3):
            with self.lock:
                self.ended[kid] = time.monotonic()
                self.unsure.discard(kid)
        return code

    # What is seen

    def judge(self, replica, kids):
        """At each change of what a replica serves: nothing comes back from the dead."""
        if kids is None:
            return
        with self.lock:
            for kid in self.ended:
                if kid not in kids:
                    self.obeyed.setdefault((kid, replica), time.monotonic())
                elif (kid, replica) in self.obeyed:
                    self.fail(f"{replica.name} serves {kid} again, which an order had ended")
            self.ever |= kids
            for kid in self.served[replica] - kids:
                # "drop" takes a key back when its files are gone, and nobody objects; who is by itself asks
                # nobody.
                accounted = kid in self.ended or kid in self.unsure or replica in self.astray or (
                    self.watched == "drop" and (
                        kid in self.removed or self.alone.get(replica, 0) > time.monotonic()))
                if self.watched and not accounted:
                    self.fail(f"{replica.name} takes {kid} back, which nobody has ended")
            self.served[replica] = set(kids)

    def unlike(self, on_removal):
        """What is not as it should be where all are connected and have the same files."""
        expected = self.ever - set(self.ended)
        if on_removal == "drop":
            expected -= self.removed
        expected |= {kid for _, kid in self.files.values() if kid not in self.ended}
        said = []
        for replica in self.replicas:
            kids = replica.kids or frozenset()
            if lost := expected - kids - self.unsure:
                said.append(f"{replica.name} does not serve {sorted(lost)}")
            if more := kids - expected - self.unsure:
                said.append(f"{replica.name} serves {sorted(more)}, which have ended")
        return said

    def until(self, what, seconds, holds):
        """How long it took; a failure where it never was."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() > began + seconds:
                self.fail(f"not within {seconds} s: {what}")
                return None
            time.sleep(0.005)
        return time.monotonic() - began

    def alike(self):
        sets = {replica.kids for replica in self.replicas}
        return len(sets) == 1 and None not in sets

    def everywhere(self, kid):
        return all(kid in (replica.kids or ()) for replica in self.replicas)

    def nowhere(self, kid):
        return all(replica.kids is not None and kid not in replica.kids for replica in self.replicas)

    def ledgers_alike(self):
        records = [json.dumps(sorted((str(key), value) for key, value in replica.records().items()), sort_keys=True)
                   for replica in self.replicas]
        return len(set(records)) == 1 and records[0] != "[]"

    def differences(self):
        ledgers = [replica.records() for replica in self.replicas]
        names = set().union(*ledgers)
        said = []
        for name in sorted(names):
            values = [ledger.get(name) for ledger in ledgers]
            if any(value != values[0] for value in values):
                members = {member for value in values if value for member in value
                           if any((other or {}).get(member) != value[member] for other in values)}
                said.append(f"{name}: " + "; ".join(
                    f"{index}: " + (json.dumps({m: value.get(m) for m in sorted(members)}) if value else "none")
                    for index, value in enumerate(values)))
        return said

    def stop(self):
        for replica in self.replicas:
            replica.monitor.over = True
            replica.kill()
        self.api.stop()
