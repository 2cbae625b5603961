"""Random faults from a seed, several at once, while keys are dropped, taken out and ordered to end."""

import time

from phases import percentile
from replica import ACCOUNT, NAMESPACE
from world import MERGE, SECRET


class Faults:
    """Each fault is a generator: what it breaks, then a yield for as long as that lasts, then the repair."""

    def __init__(self, world, on_removal):
        self.world, self.random, self.on_removal = world, world.random, on_removal
        self.count, self.counts, self.recoveries = 0, {}, []
        self.busy = set()  # replicas that a fault has now
        self.waiting = {}  # key -> until when its removal is not repeated
        self.backup = None

    # Of one replica

    def killed(self, replica):
        """Between a change and the disk, or the API server."""
        if self.random.random() < 0.5:
            self.world.drop(replica)
            time.sleep(self.random.uniform(0, 0.05))
        replica.kill()
        yield
        replica.start()

    def refused(self, replica):
        replica.proxy.set("refuse")
        yield
        replica.proxy.set("pass")

    def frozen(self, replica):
        replica.proxy.set("freeze")
        yield
        replica.proxy.set("pass")

    def deaf(self, replica):
        replica.proxy.set("deaf")
        yield
        replica.proxy.set("pass")

    def half_open(self, replica):
        replica.proxy.freeze_old()
        yield

    def cut(self, replica):
        replica.proxy.cut()
        yield

    def empty_volume(self, replica):
        # What is under way arrives later, and mends it.
        self.world.kubelet.deliver(replica, {}, 0)
        yield
        self.world.kubelet.deliver(replica, self.world.version(), 0)

    def stale_volume(self, replica):
        old = dict(list(self.world.version().items())[:-2])
        self.world.kubelet.deliver(replica, old, 0)
        yield
        self.world.kubelet.deliver(replica, self.world.version(), 0)

    def expired_token(self, replica):
        replica.new_token(self.world.api.short_token(NAMESPACE, ACCOUNT, -3600))
        replica.proxy.cut()
        yield
        replica.new_token()

    def forgotten(self, replica):
        """Its state is deleted, once everything in it is told."""
        self.world.until(f"{replica.name} has told all", 20, lambda: replica.fleet().get("notYetTold") == 0)
        replica.kill()
        self.world.forget(replica)
        yield
        replica.start()

    def wrong_clock(self, replica):
        replica.kill()
        replica.offset = self.random.choice(["+1h", "-1h"])
        replica.start()
        yield
        replica.kill()
        replica.offset = None
        replica.start()

    # Of the API server

    def server_killed(self):
        self.world.api.kill_server()
        yield
        self.world.api.start_server()

    def forbidden(self):
        self.world.revoke()
        yield
        self.world.grant()

    def replaced_ca(self):
        self.world.api.new_ca()
        self.world.api.kill_server()
        self.world.api.start_server()
        yield
        for replica in self.world.replicas:
            replica.new_ca()

    def wiped(self):
        self.world.api.must("PATCH", SECRET, {"data": None}, media=MERGE)
        yield

    def recreated(self):
        self.world.api.must("DELETE", SECRET, allowed=[404])
        yield
        self.world.new_secret()

    def restored(self):
        """An older copy of the Secret is put back."""
        copy = self.backup or self.world.secret().get("data") or {}
        self.backup = self.world.secret().get("data") or {}
        self.world.api.must("PATCH", SECRET, {"data": None}, media=MERGE)
        self.world.api.must("PATCH", SECRET, {"data": copy}, media=MERGE)
        yield

    def rolled_back(self):
        """All of etcd is put back, with its versions."""
        self.world.api.snapshot()
        self.world.until("the API server is back", 30, self.world.api.ready)
        yield
        self.world.api.restore()
        self.world.new_secret()
        self.world.grant()

    def compacted(self):
        for replica in self.world.replicas:
            replica.proxy.set("freeze")
        for number in range(3):
            self.world.api.must("PATCH", SECRET, {"metadata": {"annotations": {"noise": str(number)}}}, media=MERGE)
        self.world.api.compact()
        yield
        for replica in self.world.replicas:
            replica.proxy.set("pass")

    def crowded(self):
        """Others fill the Secret, up to what the API server takes."""
        self.world.api.must("PATCH", SECRET, {"data": {"foreign": "A" * (1232 * 1024)}}, media=MERGE)
        yield
        self.world.api.must("PATCH", SECRET, {"data": {"foreign": None}}, media=MERGE)

    OF_ONE = [killed, killed, refused, frozen, deaf, half_open, cut, empty_volume, stale_volume, expired_token,
              wrong_clock]
    OF_VOLUMES = [empty_volume, stale_volume]
    OF_ALL = [server_killed, forbidden, wiped, recreated, restored, compacted, crowded, rolled_back, replaced_ca]

    # What happens meanwhile

    def act(self):
        world = self.world
        free = [replica for replica in world.replicas if replica not in self.busy]
        if not free:
            return
        chosen = self.random.choice(free)
        what = self.random.random()
        living = [kid for _, kid in world.files.values() if kid not in world.ended and kid not in world.unsure]
        if what < 0.4 or len(living) < 3:
            if len(world.ever) < 250:
                world.drop(chosen)
        elif what < 0.7:
            # Known to all, and for a while.
            kid = self.random.choice(living[:-1])
            if world.everywhere(kid):
                world.end_by_order(chosen, kid)
        else:
            kid = self.random.choice(living[:-1])
            if world.everywhere(kid):
                world.tell(f"taken out: {kid}, first at {chosen.index}")
                world.files = {name: pair for name, pair in world.files.items() if pair[1] != kid}
                world.removed.add(kid)
                world.deliver(chosen)

    def begin(self, kind, *target):
        fault = kind(self, *target)
        self.world.tell(f"fault {self.count}: {kind.__name__} {target[0].index if target else ''}")
        self.count += 1
        self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
        next(fault)
        return fault

    @staticmethod
    def repair(fault):
        next(fault, None)

    def round(self):
        running, shared, world = [], [], self.world
        self.busy = set()
        if self.random.random() < 0.15:
            (replica,) = self.random.sample(world.replicas, 1)
            running.append(self.begin(Faults.forgotten, replica))
            self.busy.add(replica)
        else:
            everywhere = self.random.random() < 0.3
            for replica in self.random.sample(world.replicas, self.random.choice([1, 1, 2, 3])):
                kinds = self.OF_ONE if world.clocks else [k for k in self.OF_ONE if k is not Faults.wrong_clock]
                kind = self.random.choice(kinds)
                if kind in self.OF_VOLUMES and self.on_removal == "drop" and (
                        everywhere or not replica.fleet().get("connected")):
                    continue  # by itself, it takes back what is not there, as it was told
                if kind is Faults.wrong_clock:
                    # With another clock nothing about it is comparable until it is set right.
                    world.astray.add(replica)
                if kind not in self.OF_VOLUMES:
                    world.alone[replica] = float("inf")
                self.busy.add(replica)
                running.append(self.begin(kind, replica))
            if everywhere:
                kind = self.random.choice(self.OF_ALL)
                if not (kind is Faults.compacted and self.busy):
                    world.alone.update(dict.fromkeys(world.replicas, float("inf")))
                    shared = [self.begin(kind)]
        for _ in range(self.random.choice([0, 1, 1, 2])):
            self.act()
        time.sleep(self.random.choice([0.02, 0.2, 0.5, 1.0, 2.0]) * self.random.uniform(0.5, 1.5))
        self.random.shuffle(running)
        # The others' repairs may need the API server.
        for fault in shared + running:
            self.repair(fault)
            if self.random.random() < 0.5:
                self.act()
        world.astray.clear()
        # Until it has noticed that the way is open again.
        for replica, until in list(world.alone.items()):
            if until == float("inf"):
                world.alone[replica] = time.monotonic() + 11

    def agree(self):
        """With everything repaired and delivered all publish the same, and that is right."""
        world = self.world
        began = time.monotonic()
        world.kubelet.wait()
        delivered = time.monotonic()
        took = world.until("all publish alike", 40, lambda: world.alike() and not world.unlike(self.on_removal))
        if took is None:
            for difference in world.unlike(self.on_removal) or ["the sets differ"]:
                world.fail(f"after {self.count} faults: {difference}")
            return False
        self.recoveries.append(time.monotonic() - max(began, delivered))
        if world.until("the ledgers are identical", 20, world.ledgers_alike) is None:
            for difference in world.differences()[:5]:
                world.fail(f"after {self.count} faults the ledgers differ: {difference}")
            return False
        # An order that was interrupted has been carried out or not; from here on that is certain.
        kids = world.replicas[0].kids
        with world.lock:
            for kid in list(world.unsure):
                world.unsure.discard(kid)
                if kid not in kids:
                    world.ended.setdefault(kid, time.monotonic())
        return True


def play(world, seconds, on_removal):
    world.fresh(lifecycle_on_removal=on_removal)
    world.keys.prepare(30)
    world.watched = on_removal
    faults = Faults(world, on_removal)
    over = time.monotonic() + seconds
    while time.monotonic() < over and len(world.failures) < 30:
        world.slowest = faults.random.choice([1, 2, 2, 10])
        try:
            for _ in range(faults.random.choice([1, 2, 3, 5])):
                faults.round()
        except RuntimeError as error:
            world.fail(f"after {faults.count} faults: {error}")
            break
        if not faults.agree():
            break
    world.watched = None
    counts = ", ".join(f"{name} {count}" for name, count in sorted(faults.counts.items()))
    recoveries = percentile(faults.recoveries, 0.5) if faults.recoveries else float("nan")
    return (f"{faults.count} faults ({counts}); {len(world.ever)} keys, {len(world.ended)} orders; "
            f"alike again after {recoveries:.2f} s (p50), {max(faults.recoveries, default=0):.2f} s at most")
