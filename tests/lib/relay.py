# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording relay between a migration source and its destination.

It takes any number of connections (the preempt channel is a second one to the same address), records
both directions of each to a file, and on request cuts, corrupts, pauses or holds one of them at an
exact byte or in front of a chosen record.

    relay = Relay(case, "unix:/…/in", "unix:/…/out")
    relay.hold(S2D, before=lambda event: event.kind == "PACKAGED")
    …
    relay.wait_held(); relay.cut()      # or relay.release()
"""
import fcntl
import os
import queue
import select
import socket
import struct
import termios
import threading
import time

import qwire
from harness import PATIENCE, Deadline, Failure, wait_for

S2D, D2S = "s2d", "d2s"
CHUNK = 256 << 10


def parse_uri(uri):
    """(family, address) of tcp:HOST:PORT, tcp:[HOST]:PORT or unix:PATH."""
    kind, rest = uri.split(":", 1)
    if kind == "unix":
        return socket.AF_UNIX, rest
    host, port = rest.rsplit(":", 1)
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))


def listen(uri, backlog=8):
    family, address = parse_uri(uri)
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    sock.listen(backlog)
    return sock


def connect(uri):
    family, address = parse_uri(uri)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.connect(address)
    _no_delay(sock)
    return sock


def _no_delay(sock):
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def unread(sock):
    """How many bytes the other end of a UNIX socket has not read; and what they are kept in."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


def free_tcp_uri(host="127.0.0.1"):
    """A tcp: address nobody listens on right now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
    return f"tcp:[{host}]:{port}" if family == socket.AF_INET6 else f"tcp:{host}:{port}"


class Direction:
    """One direction of one connection: what went through, and what is to happen to it."""

    def __init__(self, relay, number, name, path):
        self.relay = relay
        self.number = number
        self.name = name
        self.path = path
        self.forwarded = 0
        self.chunks = []                # (seconds since the relay began, offset, length)
        self.ended_by = None            # "eof", "reset" or "cut"
        self._file = open(path, "wb", buffering=0)

    def record(self, data):
        self.chunks.append((time.monotonic() - self.relay.started, self.forwarded, len(data)))
        self._file.write(data)
        self.forwarded += len(data)

    def close(self):
        self._file.close()

    def bytes(self):
        with open(self.path, "rb") as recording:
            return recording.read()

    def head(self, count=4):
        with open(self.path, "rb") as recording:
            return recording.read(count)

    def time_of(self, position):
        """When the byte at @position was forwarded, in seconds since the relay began."""
        for when, offset, length in self.chunks:
            if offset <= position < offset + length:
                return when
        raise Failure(f"byte {position} of c{self.number} {self.name} was not forwarded")


class _Hold:
    """Stop a direction in front of a byte or a record, once."""

    def __init__(self, direction, at=None, before=None, connection=None):
        self.direction = direction
        self.at = at
        self.before = before
        self.connection = connection
        self.reached = threading.Event()
        self.passed = threading.Event()
        self._decoder = qwire.Stream() if direction == S2D else qwire.ReturnPath()
        self._fed = 0

    def concerns(self, direction):
        return (not self.passed.is_set() and direction.name == self.direction
                and self.connection in (None, direction.number))

    def limit(self, direction, data):
        """(how many bytes of @data may pass, is it there that it stops)"""
        if self.connection is None:
            if not self._is_main(direction, data):
                return len(data), False
            self.connection = direction.number
        if self.at is None:
            return self._look_for_record(direction, data)
        if self.at >= direction.forwarded + len(data):
            return len(data), False
        return max(0, self.at - direction.forwarded), True

    def _look_for_record(self, direction, data):
        fresh = data[max(0, self._fed - direction.forwarded):]
        self._fed += len(fresh)
        for event in self._decoder.feed(fresh):
            if self.before(event):
                self.at = event.start
                return self.at - direction.forwarded, True
        if self._decoder.finished:
            return len(data), False
        return self._decoder.boundary - direction.forwarded, False  # whole records only

    def _is_main(self, direction, data):
        """Nothing ever comes back on the preempt channel, so what does is the main connection."""
        head = direction.head() or bytes(data[:4])
        return self.direction == D2S or head == b"QEVM"


class _Line:
    """A line of that length: what is put in comes out @delay seconds later, and nothing waits for it.

    A thread of its own, so that what follows closely is late by @delay as well, and not by its multiples.
    """

    def __init__(self, sink, delay):
        self._sink = sink
        self._delay = delay
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def put(self, data):
        self._queue.put((time.monotonic() + self._delay, data))

    def end(self):
        """Nothing more is put in; returns when all has come out."""
        self._queue.put((0, None))
        self._thread.join()

    def _carry(self):
        while True:
            when, data = self._queue.get()
            if data is None:
                return
            time.sleep(max(0.0, when - time.monotonic()))
            try:
                self._sink.sendall(data)
            except OSError:
                return                  # who reads it will see that the connection has gone


class Connection:
    """Two sockets and two directions."""

    def __init__(self, relay, number, incoming, outgoing):
        self.relay = relay
        self.number = number
        self.sockets = {S2D: (incoming, outgoing), D2S: (outgoing, incoming)}
        self.directions = {
            name: Direction(relay, number, name, f"{relay.prefix}.c{number}.{name}")
            for name in (S2D, D2S)}
        self.lines = {name: _Line(outgoing if name == S2D else incoming, relay.delays[name])
                      for name in (S2D, D2S) if relay.delays.get(name)}
        self.threads = [threading.Thread(target=self._pump, args=(name,), daemon=True)
                        for name in (S2D, D2S)]
        self._started = threading.Event()

    def start(self):
        for thread in self.threads:
            thread.start()
        self._started.set()

    def _pump(self, name):
        source, sink = self.sockets[name]
        direction = self.directions[name]
        waiting = bytearray()
        try:
            while data := self._take(name, source):
                waiting += data
                self._forward(direction, sink, waiting)
            self._send(direction, sink, waiting)
            direction.ended_by = direction.ended_by or "eof"
            if name in self.lines:
                self.lines[name].end()
            sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._broke(direction, error)
        except Failure as failure:
            self._broke(direction, failure)

    def _take(self, name, source):
        """What has come.  While that way is stalled it stays where it is, as if nobody read it."""
        select.select([source], [], [])
        self.relay.taking[name].wait()
        return source.recv(CHUNK)

    def _broke(self, direction, why):
        direction.ended_by = direction.ended_by or "reset"
        self.relay.errors.append(f"c{self.number} {direction.name}: {why}")
        self.close()

    def _forward(self, direction, sink, waiting):
        """Send on what may pass of @waiting, and take it out."""
        while waiting:
            count, hold = self.relay.next_stop(direction, waiting)
            self._send(direction, sink, waiting[:count])
            del waiting[:count]
            if hold is None:
                return
            self.relay.stop_at(hold)

    def _send(self, direction, sink, part):
        if part:
            self._corrupt(direction, part)
            direction.record(part)
            line = self.lines.get(direction.name)
            if line:
                line.put(bytes(part))
            else:
                sink.sendall(part)

    def _corrupt(self, direction, part):
        for at, mask in self.relay.corruptions(direction):
            if direction.forwarded <= at < direction.forwarded + len(part):
                part[at - direction.forwarded] ^= mask

    def close(self, reset=False):
        for sock in self.sockets[S2D]:
            try:
                if reset and sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass                    # already gone

    def let_go(self):
        """A peer that only shuts its end down still takes what it is sent, and TCP stops when it has too much of it.
        After close(reset=True) this is the reset.
        """
        self._started.wait()
        for thread in self.threads:
            thread.join(2)
        for sock in self.sockets[S2D] if self.finished() else ():
            sock.close()

    def finished(self):
        return not any(thread.is_alive() for thread in self.threads)


class Relay:
    """Listens on one address and connects each comer to another."""

    def __init__(self, case, listen_uri, target_uri, name="relay", delays=None):
        """@delays: {direction: seconds} that what goes that way is under way."""
        self.uri = listen_uri
        self.target = target_uri
        self.delays = delays or {}
        self.prefix = case.path(name)
        self.started = time.monotonic()
        self.connections = []
        self.errors = []
        self._holds = []
        self._corruptions = []
        self._running = threading.Event()
        self._running.set()
        self.taking = {name: threading.Event() for name in (S2D, D2S)}
        for taking in self.taking.values():
            taking.set()
        self._closed = False
        self._listener = listen(listen_uri)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        case.defer(self.close)

    def _accept(self):
        while not self._closed:
            try:
                incoming, _ = self._listener.accept()
            except OSError:
                return
            _no_delay(incoming)
            try:
                outgoing = connect(self.target)
            except OSError as error:
                self.errors.append(f"{self.target}: {error}")
                incoming.close()
                continue
            connection = Connection(self, len(self.connections), incoming, outgoing)
            self.connections.append(connection)
            connection.start()

    # --- what is to happen -----------------------------------------------------------------

    def hold(self, direction=S2D, at=None, before=None, connection=None):
        """Stop @direction in front of byte @at, or of the first event @before says true to.

        Without @connection it is the main one.  wait_held() tells when; release() lets it go on.
        """
        hold = _Hold(direction, at, before, connection)
        self._holds.append(hold)
        return hold

    def corrupt(self, at, mask=0xFF, direction=S2D, connection=0):
        """XOR the byte at @at with @mask when it passes."""
        self._corruptions.append((connection, direction, at, mask))

    def stall(self, direction):
        """What is sent that way from now on is not even read: it stays in the sender's socket."""
        self.taking[direction].clear()

    def pause(self):
        """Nothing passes any more, in any direction, until resume()."""
        self._running.clear()

    def resume(self):
        self._running.set()

    def wait_held(self, hold=None, timeout=PATIENCE):
        hold = hold or self._holds[-1]
        if not hold.reached.wait(timeout):
            raise Deadline(f"waited {timeout:g} s for the relay to reach the place to hold; "
                           f"forwarded {self.summary()}")

    def release(self, hold=None):
        (hold or self._holds[-1]).passed.set()

    def release_all(self):
        """And what is stalled is read."""
        for hold in self._holds:
            hold.passed.set()
        for taking in self.taking.values():
            taking.set()

    def cut(self, connection=None, reset=False):
        """Close the connections, or that one; reset: with RST where there is such a thing."""
        for conn in self.connections if connection is None else [self.connections[connection]]:
            for direction in conn.directions.values():
                direction.ended_by = direction.ended_by or "cut"
            conn.close(reset)
        for hold in self._holds:
            hold.passed.set()
        for conn in self.connections if connection is None else [self.connections[connection]]:
            conn.let_go()

    # --- called by the connections ----------------------------------------------------------

    def next_stop(self, direction, data):
        """(how many bytes may pass now, the hold that stops there or None)"""
        self._running.wait()
        count, stop = len(data), None
        for hold in self._holds:
            if hold.concerns(direction):
                passing, here = hold.limit(direction, data)
                if passing < count or (here and passing == count and stop is None):
                    count, stop = passing, hold if here else None
        return count, stop

    def stop_at(self, hold):
        hold.reached.set()
        hold.passed.wait()

    def corruptions(self, direction):
        return [(at, mask) for connection, name, at, mask in self._corruptions
                if connection == direction.number and name == direction.name]

    # --- what happened ------------------------------------------------------------------------

    def main(self):
        """The connection that began with the magic."""
        for conn in self.connections:
            if conn.directions[S2D].head() == b"QEVM":
                return conn
        raise Failure("no connection began with the magic")

    def urgent(self):
        """The preempt channel, None without one."""
        main = self.main()
        return next((conn for conn in self.connections if conn is not main), None)

    def wait_urgent(self, timeout=PATIENCE):
        """A source may make it after its first words on the main channel."""
        return wait_for("the preempt channel", self.urgent, timeout)

    def wait_taken(self, timeout=PATIENCE):
        """The destination, at a UNIX socket, has read all that was forwarded on the main connection."""
        _, outgoing = self.main().sockets[S2D]
        wait_for("the destination to read what it was sent", lambda: not unread(outgoing), timeout)

    def wait_finished(self, timeout=PATIENCE):
        """The source has closed every connection: all that it sent was forwarded."""
        wait_for("the source to close its connections",
                 lambda: all(c.directions[S2D].ended_by for c in self.connections), timeout)

    def wait_closed(self, timeout=PATIENCE):
        """The destination has let go of every connection, too."""
        wait_for("the destination to close its connections",
                 lambda: all(c.finished() for c in self.connections), timeout)

    def summary(self):
        return ", ".join(f"c{c.number} {d.name} {d.forwarded}"
                         for c in self.connections for d in c.directions.values()) or "nothing"

    def close(self):
        """May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._running.set()
        self.release_all()
        # a blocked accept() is woken by shutdown(), not by close()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._listener_path():
            os.unlink(self._listener_path())
        self.cut()
        for conn in self.connections:
            for thread in conn.threads:
                thread.join(2)
            for sock in conn.sockets[S2D]:
                sock.close()
            for direction in conn.directions.values():
                direction.close()

    def _listener_path(self):
        family, address = parse_uri(self.uri)
        return address if family == socket.AF_UNIX and os.path.exists(address) else None
