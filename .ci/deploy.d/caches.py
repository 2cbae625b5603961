# The configurations of deploy/caches before a jwksd each: every request is answered, no key is served nor
# may be held after its end, a new one comes through, most answers come from the cache, and what jwksd can't
# be asked about any more is not served on.
#
#   caches.py BINARY DIRECTORY
import http.client, json, os, re, shutil, signal, socket, subprocess, sys, threading, time

BINARY, DIRECTORY = sys.argv[1:3]
PATH = "/.well-known/jwks.json"
MAX_AGE = 4
# By how much an answer may be held too long: nginx counts whole seconds, and one more.
OVERTIME = {"nginx": 2, "varnish": 0, "haproxy": 0, "envoy": 0}
CACHES = {"nginx", "varnish", "haproxy"}


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def instant(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def drop(keys, kid, **attributes):
    with open(f"{keys}/{kid}.meta.json", "w") as file:
        json.dump({"keyId": kid, **attributes}, file)
    made = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{keys}/.new"]
    subprocess.run(made, check=True, stderr=subprocess.DEVNULL)
    os.rename(f"{keys}/.new", f"{keys}/{kid}.pem")


class Site:
    """A jwksd and a proxy before it."""

    def __init__(self, name, keys):
        self.name = name
        self.directory = f"{DIRECTORY}/{name}"
        os.makedirs(self.directory)
        self.port, self.upstream, self.ops = free_port(), free_port(), free_port()
        self.answers, self.processes = [], []
        self.asks = threading.Event()
        environment = {**os.environ, "JWKSD_PUBLISH_MAX_AGE": f"{MAX_AGE}s", "JWKSD_LIMITS_MAX_CONNECTION_AGE": "2s"}
        arguments = [BINARY, "serve", "--keys", keys, "--state", f"{self.directory}/state",
                     "--listen", f"127.0.0.1:{self.upstream}", "--ops-listen", f"127.0.0.1:{self.ops}"]
        self.jwksd = self.run(arguments, environment)
        self.run(getattr(self, name)())
        self.thread = threading.Thread(target=self.ask)

    def run(self, arguments, environment=None):
        log = open(f"{self.directory}/log", "ab")
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        return process

    def configured(self, file):
        """The configuration with the ports and the directory of this test."""
        text = open(f"deploy/caches/{file}").read()
        for before, after in [
            (r"127\.0\.0\.1:8080", f"127.0.0.1:{self.upstream}"),
            (r'"8080"', f'"{self.upstream}"'),
            (r"port_value: 8080", f"port_value: {self.upstream}"),
            (r"\b8081\b", str(self.port)),
            (r"/var/cache/nginx", self.directory),
        ]:
            text = re.sub(before, after, text)
        return text

    def written(self, file, text):
        path = f"{self.directory}/{file}"
        with open(path, "w") as opened:
            opened.write(text)
        return path

    def nginx(self):
        temporary = "".join(f"{kind}_temp_path {self.directory}/{kind};" for kind in
                            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        path = self.written("nginx.conf", f"daemon off; pid {self.directory}/pid; error_log stderr; user root;\n"
                            "events {} http { access_log off; " + temporary + self.configured("nginx.conf") + "}")
        return ["nginx", "-p", self.directory, "-c", path]

    def varnish(self):
        path = self.written("varnish.vcl", self.configured("varnish.vcl"))
        return ["varnishd", "-F", "-f", path, "-a", f"127.0.0.1:{self.port}", "-n", f"{self.directory}/work",
                "-s", "malloc,16m"]

    def haproxy(self):
        return ["haproxy", "-db", "-f", self.written("haproxy.cfg", self.configured("haproxy.cfg"))]

    def envoy(self):
        # A value of its own, so that several can run on one machine.
        return ["envoy", "-c", self.written("envoy.yaml", self.configured("envoy.yaml")), "--log-level", "warning",
                "--concurrency", "1", "--use-dynamic-base-id"]

    def get(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        asked = time.time()
        connection.request("GET", f"{PATH}?asked={asked}", headers={"Accept": "*/*"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        kids = {key["kid"] for key in json.loads(body)["keys"]} if answer.status == 200 else set()
        age = int(answer.headers.get("age", 0))
        found = re.search(r"max-age=(\d+)", answer.headers.get("cache-control", ""))
        held_until = time.time() + int(found[1] if found else 0) - age
        return asked, answer.status, kids, held_until

    def await_ready(self):
        deadline = time.time() + 30
        while True:
            try:
                if self.get()[1] == 200:
                    return
            except OSError:
                pass
            assert time.time() < deadline, f"{self.name} never answered: {open(self.directory + '/log').read()}"
            time.sleep(0.1)

    def ask(self):
        while not self.asks.is_set():
            try:
                self.answers.append(self.get())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.answers.append((time.time(), str(error), set(), 0))
            time.sleep(0.03)

    def reached(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.ops, timeout=10)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        counts = [line for line in lines if line.startswith("jwksd_http_requests_total{listener=\"public\"") and PATH in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in counts)

    def check(self, end, dropped, stopped, reached):
        overtime = OVERTIME[self.name]
        running = [answer for answer in self.answers if answer[0] < stopped - 1]
        failed = [(asked - end, status) for asked, status, _, _ in running if status != 200]
        assert not failed, f"{self.name}: {len(failed)} of {len(running)} requests failed: {failed[:5]}"
        late = [asked - end for asked, _, kids, _ in running if "ends" in kids and asked > end + overtime]
        assert not late, f"{self.name} serves a key {late[-1]:.1f} s after its end"
        # A second by which ages are rounded.
        held = max(held - end for _, _, kids, held in running if "ends" in kids)
        assert held <= overtime + 1.1, f"{self.name} lets clients hold a key {held:.1f} s after its end"
        seen = min((asked - dropped for asked, _, kids, _ in running if "new" in kids), default=None)
        assert seen is not None and seen <= MAX_AGE + 2, f"{self.name} shows a new key after {seen}"
        stale = [asked - stopped for asked, status, _, _ in self.answers if status == 200 and asked > stopped + MAX_AGE + 1 + overtime]
        assert not stale, f"{self.name} serves what nobody vouches for, {stale[-1]:.1f} s after jwksd ended"
        share = reached / len(running)
        assert self.name not in CACHES or share < 0.35, f"{self.name} lets {share:.0%} of the requests through"
        print(f"{self.name}: {len(running)} requests, {share:.0%} of them reach jwksd; held until {held:+.1f} s from a "
              f"key's end; a new key after {seen:.1f} s")


keys = f"{DIRECTORY}/keys"
os.mkdir(keys)
os.chmod(DIRECTORY, 0o755)
drop(keys, "stays")
end = int(time.time()) + 30
drop(keys, "ends", validTo=instant(end))
sites = []
try:
    for name in OVERTIME:
        sites.append(Site(name, keys))
    for site in sites:
        site.await_ready()
    assert time.time() < end - 5, "too slow to see anything"
    before = [site.reached() for site in sites]
    for site in sites:
        site.thread.start()
    dropped = time.time()
    drop(keys, "new")
    time.sleep(max(0, end + 4 - time.time()))
    counts = [site.reached() - count for site, count in zip(sites, before)]
    stopped = time.time()
    for site in sites:
        site.jwksd.kill()
        site.jwksd.wait()
    time.sleep(MAX_AGE + 4)
    for site in sites:
        site.asks.set()
        site.thread.join()
    for site, count in zip(sites, counts):
        site.check(end, dropped, stopped, count)
finally:
    for site in sites:
        site.asks.set()
        for process in reversed(site.processes):
            process.terminate()
    for site in sites:
        for process in site.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
