"""The README's rotation, word for word but for the ports, in two terminals of 80 columns: its first block
is the daemon, its second one what a newcomer types beside it. What is shown there is compared with a
recorded transcript, kids, dates and sizes aside.

    tour.py BINARY TRANSCRIPT [--accept]      with --accept, the transcript is recorded
"""
import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.request

COLUMNS = 80
binary, recorded = os.path.abspath(sys.argv[1]), sys.argv[2]
root = os.getcwd()


def blocks():
    """The shell blocks of the README's section about a rotation."""
    section = re.search(r"^## A rotation.*?(?=^## )", open("README.md").read(), re.M | re.S)[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in sockets]


class Terminal:
    """A command on a terminal, and what is shown there."""

    def __init__(self, command, directory, environment):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm", **environment}
        for name in [name for name in environment if name in ("COLUMNS", "NO_COLOR")]:
            del environment[name]
        self.process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True)
        os.close(theirs)
        self.shown = b""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while True:
            try:
                data = os.read(self.ours, 65536)
            except OSError:
                return
            if not data:
                return
            self.shown += data

    def text(self):
        return self.shown.decode(errors="replace").replace("\r\n", "\n")

    def end(self, seconds):
        self.process.wait(seconds)
        self.reader.join(10)


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def comparable(text):
    """The words that are the same in every run: no kids, keys, dates or spans, and wherever lines end."""
    text = re.sub(r'"(n|x|y|e|publicKey|iat|exp)": ?("[^"]*"|\d+)', r'"\1":_', text)
    # Shortened or whole.
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{1,12}){0,4}\b-?", "KID", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"\b\d\d-\d\d \d\d:\d\d\b", "TIME", text)
    text = re.sub(r"\b\d+ ?(s|m|min|h|d)( \d+ ?(s|m|min|h|d))*\b", "SPAN", text)
    text = re.sub(r"\bin SPAN\b|\bSPAN ago\b|\bnow\b", "SPAN", text)
    text = re.sub(r"[█▒░·│]+", "BAR", text)
    text = re.sub(r"max-age=\d+", "max-age=_", text)
    return text.split()


def main():
    first, second = blocks()
    public, ops = free_ports(2)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.makedirs(f"{place}/target/release")
        os.symlink(binary, f"{place}/target/release/jwksd")
        os.symlink(f"{root}/config", f"{place}/config")
        # The keys are there: the command before this one in the README issued them.
        subprocess.run([binary, "keys", "issue", "--audience", "client", "--algorithm", "RS256",
                        "--keys", f"{place}/keys"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([binary, "keys", "issue", "--audience", "human", "--algorithm", "RS256",
                        "--keys", f"{place}/keys"], check=True, stdout=subprocess.DEVNULL)
        daemon = Terminal(["bash", "-c", f"exec {first}"], place, {
            "JWKSD_PUBLIC_LISTEN": f"127.0.0.1:{public}", "JWKSD_OPS_LISTEN": f"127.0.0.1:{ops}"})
        try:
            url = f"http://127.0.0.1:{public}/client/.well-known/jwks.json"
            for _ in range(600):
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    assert daemon.process.poll() is None, daemon.text()
                    time.sleep(0.1)
            assert f"  keys    http://127.0.0.1:{public}/.well-known/jwks.json\n" in daemon.text(), daemon.text()
            # Where the keys that were there are safe to sign with, as they are for who has read so far.
            time.sleep(11)
            with open(f"{place}/tour", "w") as tour:
                # Only interactive shells expand aliases by themselves.
                tour.write("shopt -s expand_aliases\n" + second.replace(":8080", f":{public}"))
            typed = Terminal(["bash", "--norc", "-v", "tour"], place, {})
            typed.end(180)
            told = typed.text()
        finally:
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGINT)
            daemon.end(30)
    told = told.replace(place, "/home/me/jwksd").replace(f":{public}", ":8080")
    told = told.split("\n", 1)[1]
    assert "\x1b[32m" in told, "there are colours"
    plain = without_colours(told)
    check_story(plain)
    check_width(plain, second)
    assert daemon.process.returncode == 0, daemon.text()
    if sys.argv[3:] == ["--accept"]:
        with open(recorded, "w") as file:
            file.write(plain)
    before, after = comparable(open(recorded).read()), comparable(plain)
    if before != after:
        import difflib
        print("\n".join(difflib.unified_diff(before, after, recorded, "now", lineterm="")))
        sys.exit("the README's rotation looks another way: see .ci/try-run.d/tour.py")
    print(f"the README's rotation goes as it says, in {COLUMNS} columns; ended by Ctrl-C")


def check_story(text):
    """In this order: the token is good, its key is to go, the token is refused, and after the emergency no
    cache keeps the key for longer than it is good."""
    at = 0
    for pattern in [r"^valid: signed by", r"is no longer published$", r"^error: the token is refused",
                    r"^cache-control: public, max-age=[0-5], must-revalidate", r"^deleted "]:
        found = re.search(pattern, text[at:], re.M)
        assert found, f"{pattern} does not follow:\n{text}"
        at += found.end()


def check_width(text, commands):
    """What jwksd prints fits, be it on stdout or stderr; log lines, JWK Sets and files are as long as they
    are."""
    own = False
    commands = commands.splitlines()
    for line in text.splitlines():
        # What curl prints has no end of line.
        command = next((one for one in commands if one and line.endswith(one)), None)
        if command:
            own = re.match(r"(\w+=\$\()?jwksd ", command) is not None
        elif own and not re.match(r"\d{4}-\d\d-\d\dT\S+ +[A-Z]+ ", line):
            # A path stands whole.
            fits = len(line) <= COLUMNS or re.fullmatch(r"(removed )?/\S+", line)
            assert fits, f"{len(line)} columns: {line}"


main()
