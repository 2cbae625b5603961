"""What is done to the fleet on purpose, one thing after the other, and what must be seen from outside."""

import json
import threading
import time

from world import ALIKE, SECRET


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def figures(values):
    return (f"p50 {percentile(values, 0.5) * 1000:.0f} ms, p99 {percentile(values, 0.99) * 1000:.0f} ms, "
            f"longest {max(values) * 1000:.0f} ms of {len(values)}")


def judge(world, what, values, expected):
    if not values:
        world.fail(f"{what}: nothing was measured")
        return "nothing was measured"
    if percentile(values, 0.5) > 0.1 or percentile(values, 0.99) > ALIKE or len(values) < expected:
        world.fail(f"{what}: {figures(values)} (of {expected}), not p50 100 ms and p99 1 s")
    return figures(values)


def drops(world, count, batch=25):
    """A key that one replica sees is served by all; each batch has a ledger of its own."""
    took = []
    world.keys.prepare(count + 8)
    for number in range(count):
        if len(world.failures) > 10:
            break
        if number % batch == 0:
            world.fresh()
        first = world.random.choice(world.replicas)
        kid = world.drop(first)
        if world.until(f"{kid} is seen at {first.name}", 5, lambda: kid in (first.kids or ())) is None:
            continue
        seen = first.monitor.seen[-1][0]
        if world.until(f"{kid}, dropped at {first.name}, is served by all", 10, lambda: world.everywhere(kid)) is None:
            continue
        took.append(max(max(next(at for at, kids in reversed(r.monitor.seen) if kids and kid in kids)
                            for r in world.replicas) - seen, 0))
        # The late deliveries of a few versions are under way at any time.
        time.sleep(world.random.uniform(0, 0.05))
    return judge(world, "drops", took, count)


def orders(world, count):
    """An order to one replica is obeyed by all, from the moment that the first one obeys."""
    took = []
    kids = [world.drop(world.replicas[0], 0) for _ in range(count)]
    world.until("the keys of the orders are served by all", 10, lambda: all(map(world.everywhere, kids)))
    for kid in kids:
        if len(world.failures) > 10:
            break
        replica = world.random.choice(world.replicas)
        instants = {}
        def note(one, served, kid=kid, instants=instants):
            if served is not None and kid not in served:
                instants.setdefault(one.index, time.monotonic())
        for one in world.replicas:
            one.monitor.listeners.append(note)
        code = world.end_by_order(replica, kid)
        if code != 0:
            world.fail(f"an order at {replica.name} ended with {code}")
        if world.until(f"all obey the order at {replica.name}", 10, lambda: world.nowhere(kid)) is not None:
            took.append(max(instants.values()) - min(instants.values()))
        for one in world.replicas:
            one.monitor.listeners.remove(note)
    return judge(world, "orders", took, count)


def rollout(world, rounds):
    """Two versions of the Secret at once: what either version's signer signs verifies everywhere."""
    world.fresh(lifecycle_propagation="2s", publish_max_age="1s")
    counts, over = {"tokens": 0, "refused": 0, "late": 0.0}, threading.Event()

    def verify():
        while not over.is_set():
            for signer in world.replicas:
                kid = signer.current()
                if kid is None:
                    continue
                signed = time.monotonic()
                for verifier in world.replicas:
                    status, body = verifier.get("/.well-known/jwks.json")
                    counts["tokens"] += 1
                    if status != 200 or kid not in {key["kid"] for key in json.loads(body)["keys"]}:
                        counts["refused"] += 1
                        asked = time.monotonic()
                        while kid not in (verifier.kids or ()) and time.monotonic() < asked + 5:
                            time.sleep(0.005)
                        late = time.monotonic() - signed
                        counts["late"] = max(counts["late"], late)
                        world.tell(f"refused: {kid} of {signer.index} at {verifier.index} for {late:.3f} s")
            time.sleep(0.01)

    thread = threading.Thread(target=verify, daemon=True)
    thread.start()
    for _ in range(rounds):
        # The new version has the new key instead of the old one.
        world.files.clear()
        first = world.random.choice(world.replicas)
        kid = world.drop(first)
        world.until(f"{kid} is current everywhere", 30, lambda: all(r.current() == kid for r in world.replicas))
    over.set()
    thread.join()
    if counts["refused"]:
        world.fail(f"rollout: {counts['refused']} of {counts['tokens']} tokens were refused, "
                   f"for up to {counts['late'] * 1000:.0f} ms after they were signed")
    return f"{counts['refused']} of {counts['tokens']} tokens refused"


def lose(world, replica):
    """A key in its grace, of which no file is left."""
    kid = world.drop(replica, 0)
    world.until("served by all", 5, lambda: world.everywhere(kid))
    world.files = {name: pair for name, pair in world.files.items() if pair[1] != kid}
    world.deliver(replica, 0)
    gone = lambda: all(any(key["keyId"] == kid and key["phase"] == "grace" for key in r.status().get("keys", []))
                       for r in world.replicas)
    world.until("the lost key is in its grace everywhere", 25, gone)
    return kid


def amnesia(world):
    """All states are deleted, and all replicas restarted: the same set."""
    world.kubelet.wait()
    world.until("all alike before", 15, world.alike)
    lost = world.random.choice(world.replicas)
    lose(world, lost)
    before = world.replicas[0].kids
    for replica in world.replicas:
        replica.kill()
    for replica in world.replicas:
        world.forget(replica)
    began = time.monotonic()
    for replica in world.replicas:
        replica.start(wait=False)
    world.until("all serve again", 20, lambda: all(r.kids is not None for r in world.replicas))
    for replica in world.replicas:
        for _, kids in replica.monitor.since(began):
            if kids != before:
                world.fail(f"{replica.name} began with another set: {len(kids ^ before)} keys differ")
                break
    world.until("the same set as before", 5, lambda: all(r.kids == before for r in world.replicas))
    return f"{len(before)} keys, one of them without files"


def away(world, seconds):
    """The API server is killed; each replica goes on by itself, and all are alike after its return."""
    a, b, c, d = world.replicas
    world.kubelet.wait()
    target = world.drop(a, 0)
    world.until("served by all", 5, lambda: world.everywhere(target))
    before = a.kids
    world.api.kill_server()
    world.tell("the API server is killed")
    gone = time.monotonic()
    new = world.drop(b, 3600)
    world.until("a key is published where it lies", 5, lambda: new in (b.kids or ()))
    world.end_by_order(c, target)
    world.until("an order is obeyed where it was given", 5, lambda: target not in (c.kids or [target]))
    world.until("the replicas say so", 30, lambda: not any(r.fleet().get("connected") for r in world.replicas))
    # One more that starts without the API, with its own memory.
    d.restart()
    for replica, expected in ((a, before), (b, before | {new}), (c, before - {target}), (d, before)):
        while time.monotonic() < gone + seconds:
            time.sleep(0.05)
        if replica.kids != expected:
            world.fail(f"{replica.name} serves another set while the API is away")
        status = replica.get("/readyz", replica.ops)[0]
        if status != 200:
            world.fail(f"{replica.name} is not ready without the API: {status}")
    world.api.start_server()
    back = time.monotonic()
    took = world.until("all alike after the API is back", 30, lambda: world.everywhere(new) and world.nowhere(target))
    if took is not None and time.monotonic() - back > 2.0:
        world.fail(f"alike only {time.monotonic() - back:.2f} s after the API's return")
    world.deliver(a, 0)
    world.kubelet.wait()
    return f"{seconds} s away, alike {(took or 0):.2f} s after its return"


def idle(world, seconds):
    """Nothing happens: no write, and one watch a replica."""
    world.kubelet.wait()
    world.until("all alike", 15, world.alike)
    time.sleep(5)  # late deliveries are noticed, and told
    began, instant = time.monotonic(), time.time()
    links = []
    while time.monotonic() < began + seconds:
        links.append(max(len(replica.proxy.all()) for replica in world.replicas))
        time.sleep(0.2)
    asked = world.api.audited(instant)
    mine = {key: count for key, count in asked.items() if key[0].startswith("system:serviceaccount:")}
    writes = {key[1]: count for key, count in mine.items() if key[1] not in ("get", "list", "watch")}
    if writes:
        world.fail(f"idle: {writes}")
    reads = sum(mine.values())
    # Re-established each 5 to 10 s, a look before each.
    if reads > 4 * 2 * (seconds / 4 + 2):
        world.fail(f"idle: {reads} requests in {seconds} s")
    if percentile(links, 0.9) > 2:
        world.fail(f"idle: {percentile(links, 0.9)} connections of a replica")
    return f"{reads} requests of four replicas in {seconds} s, no write, at most {max(links)} connections of one"


def size(world):
    """A foreign member fills the Secret: it stays, the replicas go on and say so; then it is gone."""
    world.fresh()
    foreign = "A" * (1000 * 1000 * 4 // 3 // 4 * 4)
    world.api.must("PATCH", SECRET, {"data": {"foreign": foreign}}, media="application/merge-patch+json")
    first = world.replicas[1]
    kids = [world.drop(first, 0) for _ in range(30)]
    world.until("keys are published where they lie", 20, lambda: all(map(world.everywhere, kids)))
    if (world.secret().get("data") or {}).get("foreign") != foreign:
        world.fail("a foreign member of the Secret did not stay")
    world.api.must("PATCH", SECRET, {"data": {"foreign": None}}, media="application/merge-patch+json")
    world.until("all are told when there is room", 30, lambda: len(world.records()) >= 31)
    return f"{len(world.records())} records after {len(foreign) * 3 // 4 // 1024} KiB of others' were taken out"


def clock(world):
    """A replica whose clock is an hour behind changes no date of the others', and one whose clock is ahead tells
    none, and says so."""
    if not world.clocks:
        return "skipped: no clock can be moved under this program"
    world.fresh()
    replica = world.replicas[0]
    lost = lose(world, replica)
    # And one that an order has ended, which no clock brings back.
    ended = world.drop(replica, 0)
    world.until("served by all", 5, lambda: world.everywhere(ended))
    world.end_by_order(replica, ended)
    world.until("the order is obeyed", 5, lambda: world.nowhere(ended))
    def until(one):
        return next((key["publishedUntil"] for key in one.status().get("keys", []) if key["keyId"] == lost), None)
    before = until(replica)
    for offset in ("-1h", None):
        replica.kill()
        replica.offset = offset
        replica.start()
        world.until("it hears the others", 15, lambda: replica.fleet().get("connected"))
        time.sleep(3)
    for one in world.replicas:
        if until(one) != before:
            world.fail(f"{one.name} publishes a lost key until {until(one)}, not {before}, since a clock was behind")
    replica.kill()
    replica.offset = "+1h"
    replica.start()
    off = lambda: (replica.fleet().get("clockOffSeconds") or 0) > 3000
    world.until("it says that its clock is off", 15, off)
    kid = world.drop(replica, 3600)
    world.until("a key is published where it lies", 5, lambda: kid in (replica.kids or ()))
    time.sleep(3)
    if f"key.{kid}" in world.records():
        world.fail("a replica whose clock is off told of a key")
    replica.kill()
    replica.offset = None
    replica.start()
    world.until("with the right clock all are told", 15, lambda: world.everywhere(kid))
    world.until("the ledgers are identical", 10, world.ledgers_alike)
    world.deliver(replica, 0)
    world.kubelet.wait()
    return "an hour behind: no date changes; an hour ahead: told nothing, said so; then all alike"
