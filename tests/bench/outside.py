"""What operators and clients see of the program over time: a dropped key until it is served, the
end of a grace, swaps under load, start-up and reload against the number of keys, an idle hour. Each
part prints one line or a table, and returns its figures."""
import hashlib, http.client, json, os, re, shutil, signal, socket, statistics, subprocess, sys
import tempfile, threading, time
from datetime import datetime, timedelta, timezone

PATH = "/.well-known/jwks.json"


def key(kind="ec"):
    options = {
        "ec": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "ed": ["-algorithm", "ED25519"],
    }[kind]
    return subprocess.run(["openssl", "genpkey", *options], capture_output=True, check=True).stdout


def drop(directory, name, content):
    hidden = os.path.join(directory, "." + name)
    with open(hidden, "wb") as file:
        file.write(content)
    os.rename(hidden, os.path.join(directory, name))


class Daemon:
    def __init__(self, binary, keys, *arguments, env=None, prefix=()):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = tempfile.TemporaryFile()
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [*prefix, binary, "serve", "--keys", keys, "--listen", f"127.0.0.1:{self.port}",
             "--ops-listen", "127.0.0.1:0", *arguments],
            stderr=self.log, env={**os.environ, **(env or {})})
        self.connection = None

    def get(self, headers={}):
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            self.connection.request("GET", PATH, headers=headers)
            answer = self.connection.getresponse()
            return answer, answer.read()
        except (OSError, http.client.HTTPException):
            self.connection = None
            raise

    def kids(self):
        answer, body = self.get()
        return {k["kid"] for k in json.loads(body)["keys"]} if answer.status == 200 else None

    def ready(self, limit=60):
        while time.perf_counter() - self.started < limit:
            try:
                if self.get()[0].status == 200:
                    return time.perf_counter() - self.started
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.0005)
        self.log.seek(0)
        sys.exit("never ready: " + self.log.read().decode()[-2000:])

    def status(self, field):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(field + r":\s+(\d+)", file.read()).group(1)) / 1024

    def cpu(self):
        total = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return total / 1e9

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# A user namespace in which there are no inotify instances, so that only polling notices.
NO_EVENTS = ("unshare", "--user", "--map-root-user", "sh", "-c",
             'echo 0 > /proc/sys/user/max_inotify_instances && exec "$0" "$@"')


def part_drop(binary, scratch):
    """Drops, with events and with polling each second."""
    figures = {}
    for how, count, prefix, env in (
            ("by events", 100, (), {}),
            ("by polling each second", 20, NO_EVENTS, {"JWKSD_KEYS_POLL_INTERVAL": "1s"})):
        directory = os.path.join(scratch, f"of{count}")
        os.mkdir(directory)
        drop(directory, "first.pem", key())
        daemon = Daemon(binary, directory, "--log-level", "error", prefix=prefix, env=env)
        daemon.ready()
        time.sleep(0.5)
        waits = []
        for number in range(count):
            pem = key()
            known = len(daemon.kids())
            # At any time of the second.
            time.sleep(number * 0.37 % 1 if prefix else 0)
            began = time.perf_counter()
            drop(directory, f"k{number}.pem", pem)
            while len(daemon.kids()) == known:
                time.sleep(0.0005)
            waits.append((time.perf_counter() - began) * 1000)
        print(f"drop     {count} drops by rename until served, noticed {how}: median "
              f"{statistics.median(waits):.1f} ms, p99 {percentile(waits, 0.99):.1f} ms, max {max(waits):.1f} ms")
        daemon.stop()
        figures[how] = statistics.median(waits)
    return figures


def part_grace(binary, scratch):
    drop(scratch, "a.meta.json", b'{"keyId": "a"}')
    drop(scratch, "a.pem", key())
    drop(scratch, "b.pem", key())
    daemon = Daemon(binary, scratch, "--log-level", "error")
    daemon.ready()
    late, beyond = [], 0
    for _ in range(5):
        now = datetime.now(timezone.utc)
        ends = (now + timedelta(seconds=2)).timestamp()
        stamp = now.isoformat().replace("+00:00", "Z")
        drop(scratch, "a.meta.json", json.dumps(
            {"keyId": "a", "invalidatedAt": stamp, "gracePeriodSec": 2}).encode())
        time.sleep(0.3)
        while True:
            sent = time.time()
            answer, body = daemon.get()
            received = time.time()
            if b'"kid":"a"' not in body:
                late.append((received - ends) * 1000)
                break
            age = int(re.search(r"max-age=(\d+)", answer.getheader("cache-control")).group(1))
            beyond += sent + age > ends
            time.sleep(0.001)
        drop(scratch, "a.meta.json", b'{"keyId": "a"}')
        while "a" not in daemon.kids():
            time.sleep(0.001)
    print(f"grace    2 s, without an event: seen to end {min(late):.1f} to {max(late):.1f} ms after its "
          f"instant; {beyond} answers with a max-age beyond it")
    daemon.stop()


def part_swaps(binary, scratch, swaps=1000, requests=100_000, clients=8):
    bodies = [key("ed") for _ in range(swaps + 1)]

    def version(number):
        name = f"..v{number}"
        os.mkdir(os.path.join(scratch, name))
        with open(os.path.join(scratch, name, "k.pem"), "wb") as file:
            file.write(bodies[number])
        with open(os.path.join(scratch, name, "k.meta.json"), "w") as file:
            json.dump({"keyId": f"v{number}"}, file)
        os.symlink(name, os.path.join(scratch, "..data_tmp"))
        os.rename(os.path.join(scratch, "..data_tmp"), os.path.join(scratch, "..data"))
        if number == 0:
            for link in ("k.pem", "k.meta.json"):
                os.symlink(f"..data/{link}", os.path.join(scratch, link))
        else:
            shutil.rmtree(os.path.join(scratch, f"..v{number - 1}"))

    version(0)
    # Replaced keys go at once, so that a body shows exactly one version.
    daemon = Daemon(binary, scratch, "--log-level", "error", env={"JWKSD_LIFECYCLE_ON_REMOVAL": "drop"})
    daemon.ready()
    done, wrong, counts = threading.Event(), [], []

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port)
        newest = count = 0
        while not done.is_set() or count < requests / clients:
            connection.request("GET", PATH)
            answer = connection.getresponse()
            body = answer.read()
            count += 1
            kids = [int(k["kid"][1:]) for k in json.loads(body)["keys"]]
            etag = '"' + hashlib.sha256(body).hexdigest() + '"'
            # Between the arrival of a version and the two looks that remove the other, both stand.
            if answer.status != 200 or answer.getheader("etag") != etag or not 1 <= len(kids) <= 3 \
                    or max(kids) < newest:
                wrong.append((answer.status, kids, newest))
            newest = max(kids + [newest])
        counts.append(count)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for number in range(1, swaps + 1):
        version(number)
        time.sleep(0.02)
    done.set()
    for thread in threads:
        thread.join()
    last = time.perf_counter()
    while daemon.kids() != {f"v{swaps}"} and time.perf_counter() - last < 5:
        time.sleep(0.001)
    print(f"swaps    {sum(counts)} requests during {swaps} swaps: {len(wrong)} wrong answers {wrong[:3]}; "
          f"last version served: {daemon.kids() == {f'v{swaps}'}}; peak {daemon.status('VmHWM'):.1f} MiB")
    daemon.stop()


def part_ready(binary, scratch):
    for number in range(3):
        drop(scratch, f"k{number}.pem", key("rsa"))
    first = []
    for _ in range(20):
        shutil.rmtree(os.path.join(scratch, ".jwksd"), ignore_errors=True)
        daemon = Daemon(binary, scratch, "--log-level", "error")
        first.append(daemon.ready() * 1000)
        memory = daemon.status("VmHWM")
        daemon.stop()
    again = []
    for _ in range(20):
        daemon = Daemon(binary, scratch, "--log-level", "error")
        again.append(daemon.ready() * 1000)
        daemon.stop()
    print(f"ready    3 RSA-2048 keys, exec until 200: median {statistics.median(first):.1f} ms (max "
          f"{max(first):.1f}) on a new ledger, {statistics.median(again):.1f} ms (max {max(again):.1f}) "
          f"on a known one; peak {memory:.1f} MiB")


def part_idle(binary, scratch):
    for number in range(3):
        drop(scratch, f"k{number}.pem", key("rsa"))
    daemon = Daemon(binary, scratch, "--log-level", "error")
    daemon.ready()
    time.sleep(2)
    before = daemon.cpu()
    time.sleep(60)
    spent = daemon.cpu() - before
    memory = daemon.status("VmRSS")
    daemon.stop()
    scans = "strace is missing, scans not counted"
    if shutil.which("strace"):
        # Elsewhere: what is written beside the keys is looked at.
        with tempfile.TemporaryDirectory() as elsewhere:
            trace = os.path.join(elsewhere, "trace")
            command = ("strace", "-f", "-ttt", "-e", "trace=getdents64", "-o", trace)
            daemon = Daemon(binary, scratch, "--log-level", "error", prefix=command)
            daemon.ready()
            time.sleep(35)
            with open(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children") as file:
                os.kill(int(file.read().split()[0]), signal.SIGTERM)
            daemon.process.wait(20)
            with open(trace) as file:
                times = [float(line.split()[1]) for line in file if "getdents64" in line]
        looks = [t for t, previous in zip(times, [0, *times]) if t - previous > 0.05]
        gaps = [b - a for a, b in zip(looks, looks[1:])]
        scans = "seconds between looks in 35 s: " + ", ".join(f"{gap:.1f}" for gap in gaps)
    print(f"idle     {spent / 60 * 100:.3f} % of a core over a minute, {spent * 60:.2f} s of CPU time for an "
          f"hour like it; memory {memory:.1f} MiB; {scans}")
    return {"cpu seconds an hour": spent * 60}


def keys_of(kind, count, directory):
    """Key files `k00000.pem` and so on, in a directory that is filled up as far as it has to be."""
    os.makedirs(directory, exist_ok=True)
    work, lock = iter(range(len(os.listdir(directory)), count)), threading.Lock()

    def make():
        while True:
            with lock:
                number = next(work, None)
            if number is None:
                return
            with open(os.path.join(directory, f"k{number:05}.pem"), "wb") as file:
                file.write(key(kind))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [os.path.join(directory, f"k{number:05}.pem") for number in range(count)]


def part_scale(binary, scratch):
    """Start-up and one more key against the number of keys."""
    figures = {}
    print(f"{'scale':<9}{'keys':>18}{'ready, new ledger':>20}{'known ledger':>15}{'one more key':>15}{'peak':>10}")
    for kind, count in (("ec", 10), ("ec", 100), ("ec", 1000), ("ec", 10_000), ("rsa", 10), ("rsa", 100)):
        directory = os.path.join(scratch, f"{kind}{count}")
        os.mkdir(directory)
        for file in keys_of(kind, count, os.path.join(scratch, "all-" + kind)):
            os.link(file, os.path.join(directory, os.path.basename(file)))
        start = lambda: Daemon(binary, directory, "--log-level", "error",
                               env={"JWKSD_KEYS_MAX_FILES": "20000", "JWKSD_KEYS_MAX_KEYS": "20000"})
        daemon = start()
        ready = daemon.ready() * 1000
        time.sleep(0.5 + count / 2000)
        more = []
        for number in range(5):
            pem = key(kind)
            # Asked as a cache would, so that two megabytes at a time do not measure the client.
            known = {"If-None-Match": daemon.get()[0].getheader("etag")}
            began = time.perf_counter()
            drop(directory, f"more{number}.pem", pem)
            while daemon.get(known)[0].status == 304:
                time.sleep(0.0005)
            more.append((time.perf_counter() - began) * 1000)
        peak = daemon.status("VmHWM")
        daemon.stop()
        daemon = start()
        again = daemon.ready() * 1000
        daemon.stop()
        name = {"ec": "P-256", "rsa": "RSA-2048"}[kind]
        print(f"{'':<9}{count:>9} {name:<8}{ready:>17.0f} ms{again:>12.0f} ms{statistics.median(more):>12.0f} ms"
              f"{peak:>6.0f} MiB")
        figures[f"{count} {name}"] = {"ready": ready, "again": again, "more": statistics.median(more)}
    return figures
