"""Loads one server for a while: wrk over HTTP/1.1, h2load over HTTP/2."""
import os, re, subprocess, sys, tempfile

from servers import on_core

CONNECTIONS = 32
STREAMS = 10


class Load:
    """What a round of load found: requests answered, and how long the slowest in a hundred took."""

    def __init__(self, requests, seconds, p99):
        self.requests, self.rate, self.p99 = requests, requests / seconds, p99


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit]


def over_http1(url, headers, seconds):
    """`seconds` of requests on kept-alive connections, by one thread of wrk."""
    command = ["wrk", "--latency", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    for header in headers:
        command += ["-H", header]
    out = subprocess.run(on_core(1, [*command, url]), capture_output=True, text=True).stdout
    count = re.search(r"(\d+) requests in ([\d.]+)s", out)
    p99 = re.search(r"^\s+99%\s+(\S+)", out, re.M)
    bad = re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", out)
    if not count or not p99 or bad or count.group(1) == "0":
        sys.exit(f"{url}: {bad.group(0) if bad else 'nothing was answered'}\n{out}")
    return Load(int(count.group(1)), float(count.group(2)), milliseconds(p99.group(1)))


def over_http2(url, headers, seconds):
    """`seconds` of requests on streams of kept-alive connections, by one thread of h2load."""
    with tempfile.TemporaryDirectory() as scratch:
        log = os.path.join(scratch, "log")
        command = ["h2load", "-t1", "-c8", f"-m{STREAMS}", f"-D{seconds}", f"--log-file={log}"]
        for header in headers:
            command += ["-H", header]
        out = subprocess.run(on_core(1, [*command, url]), capture_output=True, text=True).stdout
        with open(log) as file:
            times = sorted(int(line.split("\t")[2]) for line in file)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
    if not codes or "Application protocol: h2" not in out:
        sys.exit(f"{url}: no HTTP/2\n{out}")
    good, unchanged, *wrong = map(int, codes.groups())
    if wrong != [0, 0] or not times:
        sys.exit(f"{url}: {codes.group(0)}\n{out}")
    return Load(good + unchanged, seconds, times[len(times) * 99 // 100] / 1000)
