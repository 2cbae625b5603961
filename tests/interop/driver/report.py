"""The tables of what was seen."""

from clients import TTL
from daemon import ALGORITHMS
from scenarios import Emergency, Overwritten, Planned, Restart

DEFAULTS = ["client", "algorithms", "refused in a planned rotation", "its own cache",
            "asks for a propagation of", "a new kid took", "an ended kid lived",
            "a revoked kid lived", f"while jwksd was away for {Restart.AWAY} s"]
SHORT = ["client", "option", "refused in a planned rotation", "a new kid took",
         "an ended kid lived", "a revoked kid lived",
         f"while jwksd was away for {Restart.AWAY} s"]


class Row:
    def __init__(self, client, profile, found):
        self.client, self.profile, self.found = client, profile, found
        self.cache = getattr(client, profile)

    def figure(self, what, *scenarios):
        """The largest of these scenarios."""
        values = [self.found[scenario].get((self.client.name, self.profile, what))
                  for scenario in scenarios]
        return max((value for value in values if value is not None), default=None)

    def took(self):
        took = self.figure("took", Overwritten, Emergency, Restart)
        return f"(up to {self.cache.lag} s)" if took is None else f"{took:.0f} s"

    def lived(self, at_most, *scenarios):
        lived = self.figure("lived", *scenarios)
        return f"(up to {at_most} s)" if lived is None else f"{lived:.0f} s"

    def ended(self):
        if self.cache.until_miss:
            return "until an unknown kid"
        return self.lived(self.cache.trust, Planned, Overwritten)

    def revoked(self):
        return self.lived(Emergency.longest_trust(self.cache), Emergency)

    def away(self):
        refused, back = self.figure("away", Restart), self.figure("back", Restart)
        if refused is None:
            return "-"
        return f"refused, until {back:.0f} s after its return" if refused else "accepted on"

    def planned(self):
        tokens = self.figure("tokens", Planned)
        return "-" if tokens is None else f"{self.figure('refused', Planned)} of {tokens}"


def lines(rows):
    header, *_ = rows
    return ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows[1:]]]


def tables(clients, versions, scenarios):
    """`versions`: of each client by its name."""
    found = {type(scenario): scenario.figures for scenario in scenarios}
    found |= {kind: {} for kind in (Planned, Overwritten, Emergency, Restart) if kind not in found}
    defaults, short = [DEFAULTS], [SHORT]
    for client in clients:
        title = f"{client.title} {versions[client.name]}"
        algorithms = "all" if not client.refuses else f"all but {', '.join(client.refuses)}"
        row = Row(client, "defaults", found)
        defaults.append([title, algorithms, row.planned(), row.cache.note, f"{row.cache.lag} s",
                         row.took(), row.ended(), row.revoked(), row.away()])
        if client.short is not None:
            row = Row(client, "short", found)
            short.append([client.title, row.cache.note, row.planned(), row.took(), row.ended(),
                          row.revoked(), row.away()])
    known = f"{len(ALGORITHMS)} algorithms. Caches as they come:"
    return "\n".join([known, "", *lines(defaults), "", f"With a lifetime of {TTL} s:", "",
                      *lines(short)])
