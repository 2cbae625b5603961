"""A TCP proxy between one replica and the API server, which breaks as networks do."""

import socket
import threading


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy, client, server):
        self.proxy, self.client, self.server = proxy, client, server
        self.open = threading.Event()  # clear: nothing passes, and nothing is closed
        if proxy.mode != "freeze":
            self.open.set()
        self.stuck = False
        for source, sink, answers in (client, server, False), (server, client, True):
            threading.Thread(target=self.pump, args=(source, sink, answers), daemon=True).start()

    def pump(self, source, sink, answers):
        try:
            while data := source.recv(65536):
                self.open.wait()
                if answers and self.proxy.mode == "deaf":
                    break  # what was asked was done, and the answer is lost
                sink.sendall(data)
        except OSError:
            pass
        self.open.wait()
        self.close()

    def close(self):
        with self.proxy.lock:
            self.proxy.links.discard(self)
        for one in (self.client, self.server):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def kill(self):
        """Closes it, frozen or not."""
        self.close()
        self.open.set()


class Proxy:
    """`mode`: "pass"; "refuse" (nobody listens, what was open is closed); "freeze" (connections are
    taken, and nothing passes); "deaf" (requests pass, answers are lost)."""

    def __init__(self, target):
        self.target, self.mode = target, "pass"
        self.links, self.lock = set(), threading.Lock()
        self.listener = None
        self.accepted = None  # called at each new connection
        self.port = 0
        self.listen()

    def listen(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self.listener = listener
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            for one in (client, server):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(self, client, server)
            with self.lock:
                self.links.add(link)
            if told := self.accepted:
                told()

    def all(self):
        with self.lock:
            return list(self.links)

    def set(self, mode):
        before, self.mode = self.mode, mode
        if mode == "refuse" and before != "refuse":
            # shutdown wakes the thread in accept(); close alone would leave it, and the port, busy.
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.cut()
        elif before == "refuse" and mode != "refuse":
            self.listen()
        for link in self.all():
            if mode == "freeze":
                link.open.clear()
            elif not link.stuck:
                link.open.set()

    def freeze_old(self):
        """What is open now never passes anything again; new connections do."""
        for link in self.all():
            link.stuck = True
            link.open.clear()

    def cut(self):
        for link in self.all():
            link.kill()
