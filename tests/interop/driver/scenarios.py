"""What happens to the keys, and what clients must make of it. Each scenario has a jwksd of its own,
whose ten audiences (one for each algorithm) go through it at once, in one JWK Set; every client
watches all the while."""

import asyncio
import signal
import time
import traceback

from clients import TTL, Verifier
from daemon import ALGORITHMS, Daemon, audience, generate_all, instant
from watches import INTERVAL, SLACK, Watch, lanes

# What is waited for unless told otherwise: above the 30 s that are many clients' limit.
PATIENCE = 45
LONG = 6 * 3600


class Scenario:
    grace = 18
    fresh = ()  # further caches, which first look when the scenario says so
    secure = False  # whether jwksd serves by TLS

    def __init__(self, binary, directory, authority, patience, interval=INTERVAL):
        """What a cache may do for longer than `patience` (seconds) is not waited for."""
        self.interval = interval
        self.name = type(self).__name__.lower()
        self.patience = patience
        self.propagation = patience - 5
        self.daemon = Daemon(binary, directory / self.name,
                             propagation=self.propagation, grace=self.grace,
                             authority=authority if self.secure else None)
        self.lanes = lanes()
        self.watches = []
        self.tasks = []
        self.signer_task = None
        self.failures = {}  # what, once for each client, with an example
        self.figures = {}  # (client, profile, what) -> the largest over the algorithms

    def verifiers(self, client):
        """Every cache that this scenario wants of a client, by profile."""
        if client.https and not self.secure:
            return {}
        fresh = () if client.one_cache else self.fresh
        profiles = {"defaults": None, "short": TTL} | {name: None for name in fresh}
        return {
            profile: Verifier(f"{self.name}-{profile}", self.daemon.issuer, self.daemon.url, ttl)
            for profile, ttl in profiles.items()
            if profile in self.fresh or getattr(client, profile) is not None
        }

    async def run(self, programs, stranger):
        """`programs`: the running program of each client."""
        self.programs = programs
        try:
            await self.warm()
            await self.act()
            await self.end(stranger)
        except Exception as error:  # the other scenarios go on
            self.failures[f"{self.name}: {error}"] = (traceback.format_exc(), 1)
            return
        finally:
            for task in self.tasks:
                task.cancel()
            if self.tasks:
                await asyncio.wait(self.tasks, timeout=30)
            await self.daemon.end(signal.SIGKILL)
        for watch in self.watches:
            if watch.broken:
                self.fail(watch, "broken", watch.broken)
        if self.signer_task and self.signer_task.done() and not self.signer_task.cancelled():
            self.failures[f"{self.name}: the signer ended"] = (str(self.signer_task.exception()), 1)
        self.judge()

    async def sign_all(self, label, lifetime=LONG):
        for algorithm, lane in self.lanes.items():
            lane.present(label, await self.daemon.sign(algorithm, lifetime))

    async def warm(self):
        """Every cache is filled, and every client accepts what it can."""
        await self.prepare()
        await self.daemon.handed_off(dict.fromkeys(ALGORITHMS))
        await self.sign_all("old")
        for client, program in self.programs.items():
            verifiers = self.verifiers(client)
            for profile in ("defaults", "short"):
                if profile in verifiers:
                    self.watches += [
                        Watch(client, program, verifiers[profile], profile, lane, self.interval)
                        for lane in self.lanes.values()]
        self.tasks += [asyncio.create_task(watch.run()) for watch in self.watches]
        await self.until("every client knows the first keys", 90, lambda watch:
                         watch.refuses_now("old") if watch.refuses else watch.accepts("old"))

    def learns(self, watch):
        """Whether it can be waited for that this client accepts a new kid."""
        return not watch.refuses and watch.cache.lag <= self.patience

    def trust(self, cache):
        """For how long this cache may trust a removed key at most; None where that is longer than
        anyone waits, or where it needs an unknown kid to let go."""
        return None if cache.until_miss or cache.trust > self.patience else cache.trust

    async def until_learnt(self):
        await self.until("the new kid is accepted", self.patience + SLACK, lambda watch:
                         not self.learns(watch) or watch.accepts("new"))

    async def until_let_go(self):
        await asyncio.sleep(max(0.0, max(self.ends.values()) - time.time()))
        longest = max((self.trust(watch.cache) or 0 for watch in self.watches), default=0)
        await self.until("the old key is let go", longest + 2 * SLACK, lambda watch:
                         watch.refuses or self.trust(watch.cache) is None
                         or watch.refuses_now("old"))

    async def until(self, what, seconds, holds):
        """Waits until that holds for every watch; where it never does is a failure."""
        deadline = time.time() + seconds + 2 * self.interval
        while True:
            missing = [watch for watch in self.watches if not watch.broken and not holds(watch)]
            if not missing:
                return
            if time.time() > deadline:
                for watch in missing:
                    last = watch.seen[-1] if watch.seen else None
                    self.fail(watch, f"never: {what}", f"last answer: {last and last.error}")
                return
            await asyncio.sleep(0.2)

    async def look_fresh(self, profile, expected):
        """Asks caches that were never used: what the answer says now, without any memory."""
        async def one(client, program, lane):
            verifier = self.verifiers(client).get(profile)
            if verifier is None:
                return
            watch = Watch(client, program, verifier, profile, lane, self.interval)
            if watch.refuses:
                return
            await watch.look()
            for label, accepted in expected.items():
                if watch.accepts(label) != accepted:
                    self.fail(watch, f"{label} should{'' if accepted else ' not'} verify",
                              watch.last(label) and watch.last(label).error)

        await asyncio.gather(*(one(client, program, lane)
                               for client, program in self.programs.items()
                               for lane in self.lanes.values()))

    def fail(self, watch, what, example):
        """The first of its kind is told, the others are counted."""
        key = f"{self.name}: {watch.client.name} ({watch.profile}): {what}"
        first, count = self.failures.get(key, (f"{watch.lane.algorithm}: {example}", 0))
        self.failures[key] = (first, count + 1)

    def figure(self, watch, what, value):
        key = (watch.client.name, watch.profile, what)
        self.figures[key] = max(self.figures.get(key, 0), value)

    def watched(self):
        for watch in self.watches:
            if not watch.refuses:
                yield watch, watch.lane.algorithm

    async def end(self, stranger):
        """At last a key that jwksd never published: nobody accepts it, and whoever has to meet an
        unknown kid before it lets go of a removed key has met one now."""
        for lane in self.lanes.values():
            lane.present("stranger", await stranger(self.daemon.issuer))
        await self.until("a stranger's token is refused", 60,
                         lambda watch: watch.refuses_now("stranger"))
        if self.old_is_gone:
            await self.until("after an unknown kid the removed key is forgotten", 30, lambda watch:
                             not watch.cache.until_miss or watch.refuses_now("old"))

    old_is_gone = True

    # What is judged of all of them.

    def judge_unknown_algorithms(self):
        for watch in self.watches:
            if watch.refuses and any(seen.error is None for seen in watch.seen):
                self.fail(watch, "accepts an algorithm that it is said not to know", "")

    def judge_strangers(self):
        for watch in self.watches:
            if any(seen.error is None for seen in watch.of("stranger")):
                self.fail(watch, "accepts a stranger's token", "")

    def judge_old(self, published_until):
        """Accepted until its publication ends; after that no longer than the cache may."""
        for watch, algorithm in self.watched():
            for seen in watch.of("old"):
                if seen.error is not None and seen.received < published_until[algorithm]:
                    self.fail(watch, "refuses a key that is published", seen.error)
            lived, ended = watch.lived("old", self.ends[algorithm])
            trust = self.trust(watch.cache)
            if trust is not None:
                if not ended or lived > trust + SLACK:
                    self.fail(watch, f"trusted the removed key for more than {trust} s",
                              f"{lived:.1f} s")
                self.figure(watch, "lived", lived)

    def judge_new(self, since):
        for watch, algorithm in self.watched():
            if not self.learns(watch):
                continue
            took = watch.took("new", since[algorithm])
            if took is None or (took[1] or 0) > watch.cache.lag + SLACK:
                self.fail(watch, f"took more than {watch.cache.lag} s for a new kid", f"{took}")
                continue
            self.figure(watch, "took", took[0])
            accepted = False
            for seen in watch.of("new"):
                if accepted and seen.error is not None and not self.away(seen):
                    self.fail(watch, "accepted the new kid, then refused it", seen.error)
                accepted |= seen.error is None

    def away(self, _seen):
        return False


class Planned(Scenario):
    """`keys rotate`: published, and when everyone has it current; the old key goes when its last
    token has expired. The signer follows the hand-off."""

    fresh = ("cold",)
    secure = True

    async def prepare(self):
        await self.daemon.start()
        await self.daemon.issue_all()

    async def signer(self):
        while True:
            await self.sign_all("token", self.daemon.TOKEN_LIFETIME)
            await asyncio.sleep(self.interval)

    async def act(self):
        self.signer_task = asyncio.create_task(self.signer())
        self.tasks.append(self.signer_task)
        self.ends, self.new, self.rotated = {}, {}, time.time()
        for algorithm in ALGORITHMS:
            plan = await self.daemon.operation("rotate", "--audience", audience(algorithm))
            self.new[algorithm] = plan["keyId"]
            self.ends[algorithm] = instant(plan["replaced"][0]["publishedUntil"])
        await self.until_let_go()
        await self.look_fresh("cold", {"old": False, "token": True})

    def judge(self):
        self.judge_unknown_algorithms()
        self.judge_strangers()
        self.judge_old(self.ends)
        for watch, algorithm in self.watched():
            if watch.cache.lag > self.propagation:
                continue  # that is what a longer propagation is for
            tokens = watch.of("token")
            by_new = [seen.sent for seen in tokens if seen.kid == self.new[algorithm]]
            if not by_new:
                self.fail(watch, "never saw a token of the new key", "")
            elif min(by_new) < self.rotated + self.propagation:
                self.fail(watch, "the new key signed before its time", "")
            if any(seen.kid != self.new[algorithm] and seen.expires > self.ends[algorithm]
                   for seen in tokens):
                self.fail(watch, "the old key ends before its last token", "")
            for seen in tokens:
                if seen.error is not None:
                    self.fail(watch, "refuses a token that was signed by the rules", seen.error)
            refused = [seen for seen in tokens if seen.error is not None]
            for what, answers in ("tokens", tokens), ("refused", refused):
                key = (watch.client.name, watch.profile, what)
                self.figures[key] = self.figures.get(key, 0) + len(answers)


class Sudden(Scenario):
    """The old key stops and a new one signs, before anyone could fetch it."""

    fresh = ("cold",)

    async def act(self):
        await self.replace()
        await self.until_learnt()
        await self.until_let_go()
        await self.look_fresh("cold", {"old": False, "new": True})

    def judge(self):
        self.judge_unknown_algorithms()
        self.judge_strangers()
        self.judge_old(self.published_until)
        self.judge_new(self.since)

    @property
    def published_until(self):
        return self.ends


class Overwritten(Sudden):
    """Key files are overwritten in place: the old keys stay published for their grace."""

    async def prepare(self):
        self.next = await generate_all()
        await self.daemon.drop_all(await generate_all())
        await self.daemon.start()

    async def replace(self):
        old = {algorithm: self.daemon.current(algorithm) for algorithm in ALGORITHMS}
        before = time.time()
        await self.daemon.drop_all(self.next)
        self.ends = await self.daemon.succeeded(old)
        if min(self.ends.values()) < before + self.grace:
            raise AssertionError("an overwritten key is published for less than its grace")
        await self.sign_all("new")
        self.since = dict.fromkeys(ALGORITHMS, time.time())


class Emergency(Sudden):
    """A key leaked: a fresh one signs at once, and the old one ends at once."""

    async def prepare(self):
        await self.daemon.start()
        await self.daemon.issue_all()

    async def replace(self):
        self.ends, self.since, self.published_until = {}, {}, {}
        for algorithm, lane in self.lanes.items():
            old = self.daemon.current(algorithm)
            self.published_until[algorithm] = time.time()
            await self.daemon.operation(
                "issue", "--audience", audience(algorithm), "--algorithm", algorithm,
                "--invalidate-current", "--grace", "0s")
            await self.daemon.handed_off({algorithm: old})
            self.ends[algorithm] = time.time()
            lane.present("new", await self.daemon.sign(algorithm, LONG))
            self.since[algorithm] = time.time()
            if old in await asyncio.to_thread(self.daemon.served):
                raise AssertionError("a revoked key is still served")
            await self.daemon.operation("delete", old, "--yes")

    # The instant itself lies between a command's begin and its end.
    published_until = None

    def trust(self, cache):
        """Who fetches the set anew for an unknown kid lets go of a removed key with that."""
        trust = self.longest_trust(cache)
        return None if trust > self.patience else trust

    @staticmethod
    def longest_trust(cache):
        return min(cache.lag, cache.trust) if cache.revoked is None else cache.revoked


class Restart(Scenario):
    """Old keys are in their grace, their files gone, when jwksd is killed, stays away for longer
    than short caches hold, and comes back; then it is restarted in an orderly way."""

    grace = 200
    fresh = ("cold", "colder")
    old_is_gone = False
    secure = True
    AWAY = TTL + 4

    def __init__(self, binary, directory, authority, patience, interval=INTERVAL):
        # In that time no default cache may expire: whether it lives through an absence is asked.
        super().__init__(binary, directory, authority, min(patience, PATIENCE), interval)

    async def prepare(self):
        self.next = await generate_all()
        await self.daemon.drop_all(await generate_all())
        await self.daemon.start()
        self.down = self.up = float("inf")

    async def act(self):
        old = {algorithm: self.daemon.current(algorithm) for algorithm in ALGORITHMS}
        before = time.time()
        await self.daemon.drop_all(self.next)
        self.ends = await self.daemon.succeeded(old)
        if min(self.ends.values()) < before + self.grace:
            raise AssertionError("an overwritten key is published for less than its grace")
        await self.sign_all("new")
        self.since = dict.fromkeys(ALGORITHMS, time.time())
        await self.until_learnt()
        served = self.daemon.served()
        self.down = time.time()
        await self.daemon.end(signal.SIGKILL)
        await asyncio.sleep(self.AWAY)
        await self.daemon.start()
        self.up = time.time()
        await self.back(served, "cold")
        await self.until("jwksd is back: all is accepted", 2 * TTL + SLACK, lambda watch:
                         not self.learns(watch) or (watch.accepts("old") and watch.accepts("new")
                                                    and watch.last("new").sent > self.up))
        await self.daemon.end(signal.SIGTERM)
        await self.daemon.start()
        await self.back(served, "colder")

    async def back(self, served, fresh):
        if await asyncio.to_thread(self.daemon.served) != served:
            raise AssertionError("other keys are served than before")
        await self.look_fresh(fresh, {"old": True, "new": True})

    def away(self, seen):
        return seen.received > self.down

    def judge(self):
        self.judge_unknown_algorithms()
        self.judge_strangers()
        self.judge_new(self.since)
        if min(self.ends.values()) < time.time():
            self.failures["restart: it took longer than the grace"] = ("nothing is shown", 1)
        for watch, algorithm in self.watched():
            # The new kid is known to those caches alone that had the time to fetch it.
            labels = ["old", "new"] if self.learns(watch) else ["old"]
            answers = [seen for label in labels for seen in watch.of(label)]
            lost = [seen for seen in answers if seen.error is not None and (
                seen.label == "old" or self.away(seen))]
            before = [seen for seen in lost if seen.received < self.down]
            absent = [seen for seen in answers
                      if seen.sent > self.down and seen.received < self.up]
            kept = all(seen.error is None for seen in absent)
            if not absent:
                self.fail(watch, "was not asked while jwksd was away", "")
            if before:
                self.fail(watch, "refuses a key in its grace", before[0].error)
            if watch.cache.survives and not kept:
                self.fail(watch, "does not live through jwksd's absence", lost[0].error)
            back = max((seen.sent for seen in lost), default=self.up) - self.up
            self.figure(watch, "away", 0 if kept else 1)
            self.figure(watch, "back", max(0.0, back))


ALL = [Planned, Overwritten, Emergency, Restart]
