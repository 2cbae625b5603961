"""The main results as one SVG: CPU time per request of every server, and start-up and reload against
the number of keys. Colours follow the reader's scheme."""
from html import escape
from math import log10

WIDTH, LEFT, RIGHT, BAR, GAP = 760, 120, 170, 15, 16
SERVERS = {"jwksd": "a", "nginx file": "b", "nginx return": "c", "floor": "d"}
STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff; }
text { fill: #1c2430; } .dim { fill: #5b6675; } .note { font-size: 11px; fill: #5b6675; } .title { font-size: 15px; font-weight: 600; }
.a { fill: #1f6feb; stroke: #1f6feb; } .b { fill: #8a94a3; stroke: #8a94a3; }
.c { fill: #c1c8d2; stroke: #c1c8d2; } .d { fill: #e2a33b; stroke: #e2a33b; }
.line { fill: none; stroke-width: 2; } .grid { stroke: #d7dde5; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  svg { background: #12161c; } text { fill: #e6ebf2; } .dim, .note { fill: #9aa6b6; } .grid { stroke: #2c3542; }
  .a { fill: #5aa2ff; stroke: #5aa2ff; } .c { fill: #566170; stroke: #566170; }
}
"""


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def bars(figures, top):
    """CPU time per request by scenario, with three keys."""
    out = [text(16, top, "CPU time per request, microseconds (3 RSA keys; less is better)", "title")]
    x = 16
    for name, kind in SERVERS.items():
        out += [f'<rect x="{x}" y="{top + 12}" width="10" height="10" class="{kind}"/>',
                text(x + 15, top + 21, name, "dim")]
        x += 30 + 7 * len(name)
    y, scenarios = top + 40, figures[3]
    most = max(it["cpu"] for found in scenarios.values() for it in found.values())
    for scenario, found in scenarios.items():
        out.append(text(LEFT - 10, y + BAR * (len(found) + 1) / 2, scenario, "", "end"))
        for name, it in found.items():
            width = it["cpu"] / most * (WIDTH - LEFT - RIGHT)
            against = "" if name == "jwksd" else f"  (jwksd {it['ratio']:.2f} of it)"
            out += [f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}" class="{SERVERS[name]}"/>',
                    text(LEFT + width + 6, y + BAR - 4, f"{it['cpu']:.1f}{against}", "note")]
            y += BAR
        y += GAP
    return out, y


def lines(figures, top):
    """Milliseconds until ready and until one more key is served, against the number of keys."""
    out = [text(16, top, "Start-up and one more key against the number of P-256 keys, milliseconds", "title")]
    points = {int(name.split()[0]): it for name, it in figures.items() if "P-256" in name}
    height, bottom = 190, top + 30 + 190
    most = max(max(it.values()) for it in points.values())
    decades = int(log10(most)) + 1
    across = lambda count: LEFT + (log10(count) - 1) / 3 * (WIDTH - LEFT - RIGHT)
    up = lambda value: bottom - max(0, log10(value)) / decades * height
    for decade in range(decades + 1):
        y = up(10 ** decade)
        out += [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.0f}" y2="{y:.0f}" class="grid"/>',
                text(LEFT - 8, y + 4, f"{10 ** decade:,}", "dim", "end")]
    labels = []
    for field, name, kind in (("ready", "start, new ledger", "a"), ("again", "start, known ledger", "b"),
                              ("more", "one more key", "d")):
        path = " ".join(f"{across(count):.1f},{up(it[field]):.1f}" for count, it in points.items())
        out.append(f'<polyline points="{path}" class="line {kind}" style="fill:none"/>')
        last = max(points)
        labels.append([up(points[last][field]), name, kind])
    for count in points:
        out.append(text(across(count), bottom + 18, f"{count:,}", "dim", "middle"))
    labels.sort()
    for number, (y, name, kind) in enumerate(labels):
        y = max(y, labels[number - 1][0] + 14) if number else y
        labels[number][0] = y
        out.append(text(across(max(points)) + 8, y + 4, name, "dim"))
    return out, bottom + 34


def draw(figures):
    """The chart of what the parts `requests` and `scale` found."""
    drawn, y = bars(figures["requests"], 28)
    more, y = lines(figures["scale"], y + 18)
    inner = "\n".join(drawn + more)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" role="img" '
            f'aria-label="CPU time per request, and times against the number of keys">\n'
            f"<style>{STYLE}</style>\n{inner}\n</svg>\n")
