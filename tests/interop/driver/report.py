"""The table of what was seen."""

from clients import TTL
from daemon import ALGORITHMS
from scenarios import BEARABLE, Emergency, Overwritten, Planned, Restart


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
        if cache.lag is None or cache.lag > BEARABLE:
            return f"not within {BEARABLE:.0f} s"
        return seconds(largest(profile, "took", Overwritten, Emergency, Restart))

    def lived(profile, *scenarios):
        cache = getattr(client, profile)
        if cache is None:
            return "-"
        if cache.until_miss:
            return "until an unknown kid"
        value = largest(profile, "lived", *scenarios)
        return "longer" if value is None else seconds(value)

    def away(profile):
        if getattr(client, profile) is None:
            return "-"
        if figure(Restart, profile, "away") == 0:
            return "goes on"
        return f"refuses; {seconds(figure(Restart, profile, 'back'))} after it is back"

    known = len(ALGORITHMS) - len(client.refuses)
    algorithms = f"{known}" + (f", no {', '.join(client.refuses)}" if client.refuses else "")
    tokens = sum(figure(Planned, profile, "tokens") or 0 for profile in ("defaults", "short"))
    return [client.title, algorithms, f"0 of {tokens}",
            client.defaults.note, took("defaults"), lived("defaults", Emergency), away("defaults"),
            client.short.note if client.short else "-",
            took("short"), lived("short", Planned, Overwritten), away("short")]


HEADER = ["client", "algorithms", "refused in a planned rotation", "its cache by default",
          "new kid", "revoked kid lived", f"jwksd away {Restart.AWAY} s",
          f"lifetime {TTL} s by", "new kid", "ended kid lived", f"jwksd away {Restart.AWAY} s"]


def table(clients, scenarios):
    found = {type(scenario): scenario.figures for scenario in scenarios}
    found |= {kind: {} for kind in (Planned, Overwritten, Emergency, Restart) if kind not in found}
    rows = [HEADER, ["---"] * len(HEADER), *(row(client, found) for client in clients)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
