"""What clients answer, over time: one watch for each cache of a client and each algorithm."""

import asyncio
import random
import time
from dataclasses import dataclass

from daemon import ALGORITHMS, part_of

# How often a watch presents its tokens, in seconds.
INTERVAL = 2
# What a loaded machine may take on top of what a client's cache is documented to do.
SLACK = 8.0


@dataclass(frozen=True)
class Token:
    text: str

    @property
    def kid(self):
        return part_of(self.text, 0)["kid"]

    @property
    def expires(self):
        return part_of(self.text, 1)["exp"]


@dataclass(frozen=True)
class Seen:
    label: str
    kid: str
    expires: float
    sent: float
    received: float
    error: str | None


class Lane:
    """The tokens of one algorithm that are presented now, by label."""

    def __init__(self, algorithm):
        self.algorithm = algorithm
        self.tokens = {}

    def present(self, label, text):
        self.tokens.setdefault(label, []).append(Token(text))

    def presented(self):
        """The newest and the oldest of each label that have not expired."""
        now = time.time()
        for label, tokens in list(self.tokens.items()):
            alive = [token for token in tokens if token.expires > now + 2]
            for token in {id(token): token for token in alive[:1] + alive[-1:]}.values():
                yield label, token


class Watch:
    def __init__(self, client, program, verifier, profile, lane, interval):
        self.interval = interval
        self.client, self.program, self.verifier = client, program, verifier
        self.profile, self.lane = profile, lane
        self.seen = []
        self.broken = None

    @property
    def cache(self):
        return getattr(self.client, self.profile)

    @property
    def name(self):
        return f"{self.client.name} ({self.profile}) {self.lane.algorithm}"

    @property
    def refuses(self):
        return self.lane.algorithm in self.client.refuses

    async def look(self):
        for label, token in self.lane.presented():
            sent = time.time()
            error = await self.program.verify(self.verifier, token.text)
            self.seen.append(
                Seen(label, token.kid, token.expires, sent, time.time(), error))

    async def run(self):
        await asyncio.sleep(random.uniform(0, self.interval))
        try:
            while True:
                await self.look()
                await asyncio.sleep(self.interval)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.broken = f"{self.name}: {type(error).__name__}: {error}"

    def of(self, label):
        """Answers about tokens that had certainly not expired."""
        return [seen for seen in self.seen
                if seen.label == label and seen.received < seen.expires - 1]

    def last(self, label):
        answers = self.of(label)
        return answers[-1] if answers else None

    def accepts(self, label):
        last = self.last(label)
        return last is not None and last.error is None

    def refuses_now(self, label):
        last = self.last(label)
        return last is not None and last.error is not None

    def took(self, label, since):
        """How long after that instant a token was first accepted, 0 where it was never refused
        before; and when the last of those refusals began. None: never."""
        refused = None
        for seen in self.of(label):
            if seen.error is None:
                return (0.0, None) if refused is None else (seen.sent - since, refused - since)
            refused = seen.sent
        return None

    def lived(self, label, since):
        """How long after that instant a token was last accepted, and whether that was the end."""
        accepted = [seen.sent for seen in self.of(label) if seen.error is None]
        return max(0.0, max(accepted, default=since) - since), self.refuses_now(label)


def lanes():
    return {algorithm: Lane(algorithm) for algorithm in ALGORITHMS}
