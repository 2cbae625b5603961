# The metrics that README.md lists, each with its labels. A counter's name ends in _total; all
# others are gauges.
import re


def metrics():
    listed = {}
    for row in open("README.md"):
        if not row.startswith("| `jwksd_"):
            continue
        for name, labels in re.findall(r"`(jwksd_[a-z0-9_]+)(?:\{([a-z,]+)\})?`", row.split(" | ")[0]):
            assert name not in listed, f"README.md lists {name} twice"
            listed[name] = set(labels.split(",")) - {""}
    assert listed, "README.md lists no metric"
    return listed
