# What the operations listener answers, from outside: statuses and media types, and metrics that
# parse, are the ones that deploy/operation.md lists, and please promtool.
import http.client, json, subprocess, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
import listed

port = int(sys.argv[1])


def ask(method, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


problem = "application/problem+json"
for method, path, status, media in [
    ("GET", "/livez", 200, "text/plain; charset=utf-8"),
    ("GET", "/readyz", 200, "text/plain; charset=utf-8"),
    ("GET", "/readyz?verbose", 200, "text/plain; charset=utf-8"),
    ("GET", "/metrics", 200, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ("GET", "/status", 200, "application/json"),
    ("GET", "/", 200, "text/html; charset=utf-8"),
    ("HEAD", "/metrics", 200, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ("HEAD", "/", 200, "text/html; charset=utf-8"),
    ("GET", "/nothing", 404, problem),
    ("GET", "/.well-known/jwks.json", 404, problem),
    ("POST", "/metrics", 405, problem),
    ("DELETE", "/", 405, problem),
]:
    got, headers, body = ask(method, path)
    assert (got, headers["content-type"]) == (status, media), (method, path, got, headers)
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] in ("nosniff", None)
    if media == problem:
        said = json.loads(body)
        assert said["status"] == status and said["detail"], said
    if status == 405:
        assert headers["allow"] == "GET, HEAD", headers
    assert bool(body) == (method != "HEAD"), (method, path, body)

text = ask("GET", "/metrics")[2]
families = list(text_string_to_metric_families(text))
names = listed.metrics()
exported = {}
for family in families:
    assert family.documentation, f"{family.name} is not explained"
    name = family.name + ("_total" if family.type == "counter" else "")
    assert family.type in ("counter", "gauge"), family
    exported[name] = set()
    for sample in family.samples:
        exported[name] |= set(sample.labels)
missing, strangers = set(names) - set(exported), set(exported) - set(names)
assert not missing, f"in deploy/operation.md, and not exported: {sorted(missing)}"
assert not strangers, f"exported, and not in deploy/operation.md: {sorted(strangers)}"
for name, labels in exported.items():
    # Without a sample there is nothing to compare.
    assert not labels or labels == names[name], f"{name} has the labels {labels}, not {names[name]}"

# promtool reads the older format, where a counter's family is named like its samples.
counters = {family.name for family in families if family.type == "counter"}
older = []
for line in text.splitlines():
    words = line.split(" ", 3)
    if words[0] == "#" and len(words) == 4 and words[2] in counters:
        line = " ".join([words[0], words[1], words[2] + "_total", words[3]])
    if line != "# EOF":
        older.append(line)
lint = subprocess.run(["promtool", "check", "metrics"], input="\n".join(older) + "\n", text=True, capture_output=True)
assert lint.returncode == 0 and not lint.stderr.strip(), lint.stderr
print(f"every path answers as it should; {len(exported)} metrics parse as OpenMetrics, as listed, and promtool has nothing to say")
