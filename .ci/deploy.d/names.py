# Both speak of listed metrics and labels alone, and all of the dashboard is PromQL.
import json, re, sys
import yaml
import listed
listed = listed.metrics()
rules = yaml.safe_load(open("deploy/prometheus/rules.yml"))
tests = open("deploy/prometheus/rules_test.yml").read()
dashboard = json.load(open("deploy/grafana/dashboard.json"))
expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
for group in rules["groups"]:
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule
        assert {"summary", "description"} <= set(rule["annotations"]), rule
        assert f'"{rule["alert"]}"' in tests or f'alertname: {rule["alert"]}' in tests, f"{rule['alert']} has no test"
panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]), "an id twice"
drawn = [target["expr"] for panel in panels for target in panel["targets"]]
assert drawn and all(panel["targets"] for panel in panels)
for one in panels:
    box = one["gridPos"]
    assert box["x"] + box["w"] <= 24, one["title"]
    for other in panels:
        o = other["gridPos"]
        assert one is other or not (box["x"] < o["x"] + o["w"] and o["x"] < box["x"] + box["w"]
            and box["y"] < o["y"] + o["h"] and o["y"] < box["y"] + box["h"]), (one["title"], other["title"])
variables = [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
annotations = [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
series = re.findall(r"series: '([^']+)'", tests)
targets = {"job", "namespace", "instance", "__name__"}
used = set()
for expression in expressions + drawn + annotations + variables + series:
    names = set(re.findall(r"\bjwksd_[a-z0-9_]+", expression))
    assert names <= set(listed), f"unknown: {sorted(names - set(listed))} in {expression}"
    used |= names
    for name, labels in re.findall(r"\b(jwksd_[a-z0-9_]+)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", labels):
            assert label in listed[name] | targets, f"{name} has no label {label}: {expression}"
assert set(listed) == used, f"neither in a rule nor on the dashboard: {sorted(set(listed) - used)}"
plain = [e.replace("$__rate_interval", "5m").replace("$", "") for e in drawn + annotations]
records = [{"record": f"check:{i}", "expr": e} for i, e in enumerate(plain)]
yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}, open(f"{sys.argv[1]}/dashboard.yml", "w"))
print(f"{len(expressions)} rules and {len(panels)} panels speak of {len(used)} metrics, all of them listed")
