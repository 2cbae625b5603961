"""The table of what was seen."""

from clients import TTL
from daemon import ALGORITHMS
from scenarios import Emergency, Overwritten, Planned, Restart


def seconds(value):
    return "-" if value is None else f"{value:.0f} s"


def row(client, found):
    def figure(scenario, profile, what):
        return found[scenario].get((client.name, profile, what))

    def largest(profile, what, *scenarios):
        values = [figure(scenario, profile, what) for scenario in scenarios]
        return max((value for value in values if value is not None), default=None)

    def took(profile):
        cache = getattr(client, profile)
        if cache is None:
            return "-"
        value = largest(profile, "took", Overwritten, Emergency, Restart)
        return f"(up to {cache.lag} s)" if value is None else seconds(value)

    def lived(profile, at_most, *scenarios):
        cache = getattr(client, profile)
        if cache is None:
            return "-"
        if cache.until_miss:
            return "until an unknown kid"
        value = largest(profile, "lived", *scenarios)
        return f"(up to {at_most(cache)} s)" if value is None else seconds(value)

    def away(profile):
        if getattr(client, profile) is None:
            return "-"
        if figure(Restart, profile, "away") == 0:
            return "goes on"
        return f"refuses; {seconds(figure(Restart, profile, 'back'))} after it is back"

    def planned(what):
        return sum(figure(Planned, profile, what) or 0 for profile in ("defaults", "short"))

    known = len(ALGORITHMS) - len(client.refuses)
    algorithms = f"{known}" + (f", no {', '.join(client.refuses)}" if client.refuses else "")
    return [
        client.title, algorithms, f"{planned('refused')} of {planned('tokens')}",
        client.defaults.note, took("defaults"),
        lived("defaults", lambda cache: cache.trust, Planned, Overwritten),
        lived("defaults", Emergency.longest_trust, Emergency), away("defaults"),
        client.short.note if client.short else "-", took("short"),
        lived("short", lambda cache: cache.trust, Planned, Overwritten), away("short"),
    ]


HEADER = ["client", "algorithms", "refused in a planned rotation",
          "its cache by default", "new kid", "ended kid", "revoked kid", f"away {Restart.AWAY} s",
          f"{TTL} s by", "new kid", "ended kid", f"away {Restart.AWAY} s"]


def table(clients, scenarios):
    found = {type(scenario): scenario.figures for scenario in scenarios}
    found |= {kind: {} for kind in (Planned, Overwritten, Emergency, Restart) if kind not in found}
    rows = [HEADER, ["---"] * len(HEADER), *(row(client, found) for client in clients)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
