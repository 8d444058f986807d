"""Holds a deployment's port and hands it to the workers, inside a container of its own.

`python -I -S -c SOURCE SOCKET HOST PORT`: it is sent as text and runs in any image with Python 3,
so it imports the standard library alone. It listens, and never accepts: each worker that joins over
the UNIX socket gets the listening socket itself, and the read end of a pipe, its gate. Connections
wait in the kernel's queue while no worker is there. What a worker says of itself is printed, one
line of JSON each, which is how the target learns it.

SIGUSR1 opens the gates of all workers that are here now. SIGUSR2 turns away whoever connects from
here on, until the next SIGUSR1: the deployment stops. Their requests are answered with 503, for
behind the engine's proxy a connection that is only closed looks as if a worker had died with the
request. SIGTERM ends it, and with it the workers that have joined.
"""

import json
import os
import selectors
import signal
import socket
import sys

BACKLOG = 2048
LONGEST = 12_000  # engines split longer lines of logs
TURNED_AWAY_MOST = 256
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)

_BODY = b'{"message":"The deployment is being stopped.","code":"unreachable"}'
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    # serve.endpoints.front.heads.TURNED_AWAY: an endpoint asks another deployment instead.
    b"X-Fieldpost-Turned-Away: stopping\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
) % (len(_BODY), _BODY)


class Worker:
    """A worker that is connected; `gate` is the write end of its pipe while that is shut."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.name = ""
        self.gate: int | None = None
        self.answers = False
        self.said = b""

    @property
    def revision(self) -> str:
        """The revision that it belongs to: `r3` of `r3/w0`."""
        return self.name.partition("/")[0]

    def open_gate(self) -> None:
        """Lets it accept connections."""
        self.answers = True
        if self.gate is not None:
            os.close(self.gate)
            self.gate = None

    def close(self) -> None:
        """Forgets it."""
        self.connection.close()
        if self.gate is not None:
            os.close(self.gate)


class Front:
    """The listening socket, and who has it."""

    def __init__(self, path: str, host: str, port: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(BACKLOG)
        self.listener.setblocking(False)
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(path):  # noqa: PTH110 - pathlib would cost a third of the start
            os.unlink(path)  # noqa: PTH108
        self.control.bind(path)
        os.chmod(path, 0o666)  # noqa: PTH101, S103 - only this deployment's containers see it
        self.control.listen(64)
        self.opened: set[str] = set()
        self.workers: list[Worker] = []
        self.guests: list[socket.socket] = []
        self.ended = False

    def run(self) -> None:
        """Works until a signal ends it."""
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self.selector.register(reader, selectors.EVENT_READ, lambda: self.take_signals(reader))
        self.selector.register(self.control, selectors.EVENT_READ, self.join)
        tell("", "listening")
        while not self.ended:
            for key, _ in self.selector.select():
                key.data()

    def take_signals(self, reader: int) -> None:
        """Does what signals say."""
        for number in os.read(reader, 64):
            if number == signal.SIGUSR1:
                self.turn_to_workers()
                for worker in self.workers:
                    self.open_gate(worker)
            elif number == signal.SIGUSR2:
                self.turn_away()
            else:
                self.ended = True

    def join(self) -> None:
        """Takes a connection of a worker."""
        worker = Worker(self.control.accept()[0])
        worker.connection.setblocking(False)
        self.workers.append(worker)
        read = selectors.EVENT_READ
        self.selector.register(worker.connection, read, lambda: self.hear(worker))

    def hear(self, worker: Worker) -> None:
        """Takes what a worker says: its name first, then its state."""
        try:
            data = worker.connection.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.forget(worker)
            return
        *lines, worker.said = (worker.said + data).split(b"\n")
        for line in lines:
            if worker.name:
                report(worker.name, line)
            else:
                self.greet(worker, line.decode(errors="replace"))

    def greet(self, worker: Worker, name: str) -> None:
        """Gives a worker the socket and its gate, which is open where nobody answers now."""
        worker.name = name
        reader, worker.gate = os.pipe()
        try:
            socket.send_fds(worker.connection, [b"go"], [self.listener.fileno(), reader])
        except OSError:
            self.forget(worker)
            return
        finally:
            os.close(reader)
        tell(name, "joined")
        if worker.revision in self.opened or not any(each.answers for each in self.workers):
            self.open_gate(worker)

    def open_gate(self, worker: Worker) -> None:
        """Lets a worker accept, and all of its revision that come later."""
        if worker.name and not worker.answers:
            self.opened.add(worker.revision)
            worker.open_gate()
            tell(worker.name, "opened")

    def forget(self, worker: Worker) -> None:
        """A worker has gone."""
        self.selector.unregister(worker.connection)
        self.workers.remove(worker)
        worker.close()
        if worker.name:
            tell(worker.name, "gone")

    def turn_to_workers(self) -> None:
        """Leaves connections to the workers again."""
        if self.listener in self.selector.get_map():
            self.selector.unregister(self.listener)

    def turn_away(self) -> None:
        """Refuses what connects from here on: nobody is left who would answer."""
        if self.listener not in self.selector.get_map():
            self.selector.register(self.listener, selectors.EVENT_READ, self.receive)

    def receive(self) -> None:
        """Takes a connection that is to be turned away."""
        try:
            guest = self.listener.accept()[0]
        except OSError:
            return  # a worker was faster
        guest.setblocking(False)
        if len(self.guests) >= TURNED_AWAY_MOST:
            self.dismiss(self.guests[0])
        self.guests.append(guest)
        asked: list[bool] = []
        self.selector.register(guest, selectors.EVENT_READ, lambda: self.refuse(guest, asked))

    def refuse(self, guest: socket.socket, asked: list[bool]) -> None:
        """Answers the first bytes, then reads on: a reset would take the answer back."""
        try:
            data = guest.recv(65_536)
            if asked and data:
                return
            asked.append(True)
            if data and not data.startswith((b"\x16", b"PRI ")):  # TLS and HTTP/2
                guest.sendall(REFUSAL)
                guest.shutdown(socket.SHUT_WR)
                return
        except BlockingIOError:
            return
        except OSError:
            """It has gone."""
        self.dismiss(guest)

    def dismiss(self, guest: socket.socket) -> None:
        """Closes a connection that was turned away."""
        if guest in self.guests:
            self.guests.remove(guest)
            self.selector.unregister(guest)
            guest.close()


def report(name: str, line: bytes) -> None:
    """Prints what a worker has said, cut to what fits into a line of a log."""
    try:
        document = json.loads(line)
        state = str(document["state"])
        error = document.get("error")
        detail = str(document.get("detail") or "")[-LONGEST // 2 :]
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    tell(name, state, **({"error": error, "detail": detail} if error else {}))


def tell(worker: str, state: str, **more: object) -> None:
    """Prints an event."""
    text = json.dumps({"front": worker, "state": state, **more})
    if len(text) > LONGEST:
        text = json.dumps({"front": worker, "state": state})
    print(text, flush=True)  # noqa: T201 - the log is how the target hears of it


def main() -> None:
    """Runs the front that the arguments name."""
    path, host, port = sys.argv[1:]
    Front(path, host, int(port)).run()


if __name__ == "__main__":
    main()
