# The metrics that deploy/operation.md lists, each with its labels. A counter's name ends in _total; all
# others are gauges.
import re


def metrics():
    listed = {}
    for row in open("deploy/operation.md"):
        if not row.startswith("| `jwksd_"):
            continue
        for name, labels in re.findall(r"`(jwksd_[a-z0-9_]+)(?:\{([a-z,]+)\})?`", row.split(" | ")[0]):
            assert name not in listed, f"deploy/operation.md lists {name} twice"
            listed[name] = set(labels.split(",")) - {""}
    assert listed, "deploy/operation.md lists no metric"
    return listed
