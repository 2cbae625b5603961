"""The servers that are compared, each with one worker on loopback: jwksd, nginx in two ways, and an
epoll loop that parses nothing. All of them answer with the same bytes: those that jwksd serves."""
import gzip, os, re, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PATH = "/.well-known/jwks.json"
# nginx reads a parameter of its configuration into a buffer of 4,096 bytes.
LONGEST_RETURN = 3900


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_core(core, command):
    """The command, kept on one core: the servers have one, what loads them has the other."""
    return ["taskset", "-c", str(core), *command] if os.cpu_count() > 1 else command


class Server:
    """A server at work. `url` is of plain HTTP, `tls_url` of HTTPS where it has it."""

    def __init__(self, name, command, port, tls_port=None, env=None, path=PATH):
        self.name = name
        self.url = f"http://127.0.0.1:{port}{path}"
        self.tls_url = f"https://127.0.0.1:{tls_port}{path}" if tls_port else None
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(on_core(0, command), stdout=self.log, stderr=self.log,
                                        env={**os.environ, **(env or {})})
        self._wait(port)

    def _wait(self, port):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        self.log.seek(0)
        self.process.kill()
        sys.exit(f"{self.name} does not listen: {self.log.read().decode()[-2000:]}")

    def processes(self):
        """Its processes, children first met last."""
        found, left = [], [self.process.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as file:
                        left += map(int, file.read().split())
            except OSError:
                pass
        return found

    def cpu(self):
        """Seconds of CPU time that its threads have had."""
        total = 0
        for pid in self.processes():
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                    total += int(file.read().split()[0])
        return total / 1e9

    def peak(self):
        """The most memory that its processes had, in MiB."""
        total = 0
        for pid in self.processes():
            with open(f"/proc/{pid}/status") as file:
                total += int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1))
        return total / 1024

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def certificate(directory):
    """A self-signed certificate for P-256, and its key."""
    certificate, key = (os.path.join(directory, name) for name in ("tls.crt", "tls.key"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", certificate,
                    "-days", "30", "-subj", "/CN=localhost"], check=True, capture_output=True)
    return certificate, key


def jwksd(binary, keys, scratch, tls=None):
    """jwksd over a directory of keys; with `tls` on the TLS port alone, and without it in the clear."""
    port, config = free_port(), os.path.join(scratch, "jwksd.toml")
    with open(config, "w") as file:
        file.write(f'[public]\nlisten = "127.0.0.1:{port}"\n')
        if tls:
            file.write(f'tls = {{ certificate = "{tls[0]}", key = "{tls[1]}" }}\n')
        # Nobody is cut off for its age in the middle of a round.
        file.write('[ops]\nlisten = "127.0.0.1:0"\n[limits]\nmax_connection_age = "1h"\n')
    state = os.path.join(scratch, "state")
    command = [binary, "serve", "--config", config, "--keys", keys, "--state", state,
               "--log-level", "error"]
    return Server("jwksd", command, port, port if tls else None)


def body_of(server):
    """What it serves, once it serves it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(server.url, timeout=5) as answer:
                return answer.read(), answer.headers["etag"]
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


NGINX = """
daemon off;
worker_processes 1;
pid {scratch}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_time 1h;
    open_file_cache max=16 inactive=1h;
    open_file_cache_valid 1h;
    client_body_temp_path {scratch}/t1; proxy_temp_path {scratch}/t2; fastcgi_temp_path {scratch}/t3;
    uwsgi_temp_path {scratch}/t4; scgi_temp_path {scratch}/t5;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl http2;
        location = /.well-known/jwks.json {{
            default_type application/json;
            add_header cache-control "public, max-age=300, must-revalidate, stale-while-revalidate=0, stale-if-error=0";
            {answer}
        }}
    }}
}}
"""


def nginx(kind, body, scratch, tls):
    """nginx: `file` serves a file, compressed beforehand; `return` has the answer in its settings."""
    directory = os.path.join(scratch, kind)
    os.mkdir(directory)
    if kind == "file":
        root = os.path.join(directory, ".well-known")
        os.mkdir(root)
        for name, content in (("jwks.json", body), ("jwks.json.gz", gzip.compress(body, 9))):
            with open(os.path.join(root, name), "wb") as file:
                file.write(content)
        subprocess.run(["chmod", "-R", "a+rX", scratch], check=True)
        answer = f"root {directory}; gzip_static on;"
    else:
        answer = f"gzip on; gzip_min_length 0; gzip_types application/json; return 200 '{body.decode()}';"
    port, tls_port, config = free_port(), free_port(), os.path.join(directory, "nginx.conf")
    with open(config, "w") as file:
        file.write(NGINX.format(scratch=directory, port=port, tls_port=tls_port, answer=answer,
                                certificate=tls[0], key=tls[1]))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    return Server(f"nginx {kind}", [program, "-c", config, "-e", "stderr"], port, tls_port)


def floor(name, answer, scratch):
    """The epoll loop, which answers with `answer`, head and all."""
    program = os.path.join(scratch, "floor")
    if not os.path.exists(program):
        subprocess.run(["cc", "-O2", "-o", program, os.path.join(HERE, "floor.c")], check=True)
    port, file = free_port(), os.path.join(scratch, name)
    with open(file, "wb") as out:
        out.write(answer)
    return Server("floor", [program, str(port), file], port)
