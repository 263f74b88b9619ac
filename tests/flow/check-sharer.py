#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""libpostcopy against a second reading of the registration protocol.

The daemon's side is written here from postcopy-protocol(7) alone: structs packed by hand, descriptors by
SCM_RIGHTS, faults served by raw ioctls.  `sharer` is driven through whole sessions: with shared, private
and self-registered memory, two processes on one memfd, a load that fails, a daemon that dies, and one
that knows nothing but garbage.  (F06, F18, F22, S1-39)
"""
import array
import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

BUILD = os.environ.get("POSTCOPY_TOP_BUILDDIR", os.getcwd())
SHARER = os.path.join(BUILD, "tests/lib/sharer")
PAGE = 4096
PATIENCE = 60       # seconds until a test is given up; no verdict depends on it being short

# --- the protocol, from its manual page ---

MAGIC = 0x59504350
(HELLO, BLOCK, MAPPING, READY, WANT, LOADED, LOAD_FAILED, LEAVE) = range(1, 9)
(WELCOME, REFUSED, RESULT, LISTENING, PACKAGE, RUNNING, COMPLETE, FAILED, PAUSED, DISABLED) = range(64, 74)
HEAD = struct.Struct("=IHHII")
HELLO_BODY = struct.Struct("=4IQ64s")
BLOCK_BODY = struct.Struct("=2I3Q256s")
MAPPING_BODY = struct.Struct("=2I3Q256s")
WANT_BODY = struct.Struct("=2I2Q256s")
TEXT_BODY = struct.Struct("=iI256s")


def packet(kind, serial, body=b""):
    return HEAD.pack(MAGIC, 1, kind, HEAD.size + len(body), serial) + body


def text_body(error, text):
    return TEXT_BODY.pack(error, 0, text.encode())


def name_of(field):
    return field.split(b"\0", 1)[0].decode()


# --- userfaultfd by hand ---

UFFDIO_REGISTER, UFFDIO_UNREGISTER = 0xC020AA00, 0x8010AA01
UFFDIO_WAKE, UFFDIO_COPY = 0x8010AA02, 0xC028AA03
EEXIST = 17


class Sharer:
    """One connection: a process that handed its faults over."""

    def __init__(self, sock):
        self.sock, self.uffd, self.name, self.role = sock, -1, "", 0
        self.blocks, self.ranges, self.said, self.ready = {}, [], [], False
        self.kinds, self.registered_itself, self.faults = [], 0, 0
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self.pid = pid

    def register(self, address, length, block, offset):
        if not self.registered_itself:
            arg = bytearray(struct.pack("=QQQQ", address, length, 1, 0))
            fcntl.ioctl(self.uffd, UFFDIO_REGISTER, arg)
        self.ranges.append((address, length, block, offset))

    def find_mappings(self, block):
        """Universal registration: every mapping of the file, found in /proc."""
        st = os.fstat(block["fd"])
        key = "%02x:%02x %d" % (os.major(st.st_dev), os.minor(st.st_dev), st.st_ino)
        for line in open("/proc/%d/maps" % self.pid):
            f = line.split(None, 5)
            if "%s %s" % (f[3], f[4]) == key:
                start, end = (int(x, 16) for x in f[0].split("-"))
                self.register(start, end - start, block["name"], int(f[2], 16) - block["file_offset"])


class Daemon:
    """Serves what is in `content` (name -> bytes) to everybody who registers."""

    def __init__(self, path, content, expect=1, package=None, script=None):
        self.content, self.expect, self.package, self.script = content, expect, package, script
        self.sharers, self.stop, self.error, self.wanted = [], False, None, []
        self.listening = self.listen_done = False
        self.listen = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listen.bind(path)
        self.listen.listen(8)
        self.present = {n: set() for n in content}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    # registration

    def result(self, s, serial, error=0, text=""):
        s.sock.send(packet(RESULT, serial, text_body(error, text)))

    def on_hello(self, s, serial, body, fds):
        s.role, policy, flags, zero, token, name = HELLO_BODY.unpack(body)
        s.uffd, s.name = fds[0], name_of(name)
        assert zero == 0 and policy in (1, 2, 3) and token == 0 and flags in (0, 1)
        if any(o.name == s.name for o in self.sharers if o is not s):
            s.sock.send(packet(REFUSED, serial, text_body(EEXIST, "name %s is taken" % s.name)))
            return
        s.sock.send(packet(WELCOME, serial, struct.pack("=IIQQ", len(self.sharers), 1, 4711, 0)))

    def on_block(self, s, serial, body, fds):
        flags, zero, length, page_size, file_offset, name = BLOCK_BODY.unpack(body)
        name = name_of(name)
        assert zero == 0 and len(fds) == (0 if flags & 1 else 1)
        if name not in self.content or length != len(self.content[name]):
            self.result(s, serial, 22, "block %s, %d bytes: unknown here" % (name, length))
            return
        s.blocks[name] = {"name": name, "fd": fds[0] if fds else -1, "file_offset": file_offset,
                          "length": length, "page_size": page_size}
        self.result(s, serial)

    def on_mapping(self, s, serial, body, fds):
        flags, zero, address, length, offset, name = MAPPING_BODY.unpack(body)
        assert zero == 0 and not fds
        s.registered_itself = flags & 1
        s.register(address, length, name_of(name), offset)
        self.result(s, serial)

    def on_ready(self, s, serial, body, fds):
        for b in s.blocks.values():
            if b["fd"] >= 0 and not s.registered_itself:
                s.find_mappings(b)
        s.ready = True
        self.result(s, serial)
        if sum(o.ready for o in self.sharers) >= self.expect or self.listening:
            self.begin()

    def on_want(self, s, serial, body, fds):
        klass, zero, offset, length, name = WANT_BODY.unpack(body)
        self.wanted.append((s.name, name_of(name), offset, length, klass))
        self.result(s, serial)

    def on_loaded(self, s, serial, body, fds):
        s.sock.send(packet(RUNNING, 0))

    def on_load_failed(self, s, serial, body, fds):
        error, _, text = TEXT_BODY.unpack(body)
        s.sock.send(packet(FAILED, 0, text_body(error, "load: " + name_of(text))))

    def on_leave(self, s, serial, body, fds):
        st = [os.fstat(b["fd"]).st_ino for b in s.blocks.values() if b["fd"] >= 0]
        left = [l for l in open("/proc/%d/maps" % s.pid) if int(l.split(None, 5)[4]) in st]
        self.result(s, serial, 16 if left else 0, "still mapped" if left else "")

    def begin(self):
        self.listening = True
        for s in self.sharers:
            if "listening" in s.said or not s.ready:
                continue
            s.said.append("listening")
            s.sock.send(packet(LISTENING, 0))
            if s.role == 1 and self.package:
                fd = os.memfd_create("package", os.MFD_ALLOW_SEALING)
                os.write(fd, self.package)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0xF)
                body = struct.pack("=QQQ", len(self.package), 2, len(self.package) - 2)
                socket.send_fds(s.sock, [packet(PACKAGE, 0, body)], [fd])
                os.close(fd)

    calls = {HELLO: on_hello, BLOCK: on_block, MAPPING: on_mapping, READY: on_ready, WANT: on_want,
             LOADED: on_loaded, LOAD_FAILED: on_load_failed, LEAVE: on_leave}

    def on_packet(self, s):
        data, fds, flags, _ = socket.recv_fds(s.sock, 1024, 4)
        if not data:
            os.close(s.uffd)
            self.sharers.remove(s)
            return
        magic, version, kind, size, serial = HEAD.unpack_from(data)
        assert (magic, version, size) == (MAGIC, 1, len(data)) and serial != 0 and not flags & 0x28
        s.kinds.append(kind)
        if self.script and self.script(self, s, kind, serial):
            return
        self.calls[kind](self, s, serial, data[HEAD.size:], fds)

    # faults

    def place(self, s, address, content, zero_ok=False):
        buf = ctypes.create_string_buffer(content, len(content))
        arg = bytearray(struct.pack("=QQQQq", address, ctypes.addressof(buf), len(content), 0, 0))
        try:
            fcntl.ioctl(s.uffd, UFFDIO_COPY, arg)
        except OSError as e:
            if e.errno != EEXIST:
                raise

    def wake_all(self, block, offset):
        for s in self.sharers:
            for start, length, name, at in s.ranges:
                if name == block and at <= offset < at + length:
                    fcntl.ioctl(s.uffd, UFFDIO_WAKE,
                                struct.pack("=QQ", start + offset - at, PAGE))

    def serve(self, s, block, offset):
        for start, length, name, at in s.ranges:
            if name == block and at <= offset < at + length:
                self.place(s, start + offset - at, self.content[block][offset:offset + PAGE])
                break
        self.present[block].add(offset)
        self.wake_all(block, offset)

    def on_fault(self, s):
        try:
            message = os.read(s.uffd, 32)
        except BlockingIOError:
            return
        assert message[0] == 0x12, "an event that nobody asked for: 0x%x" % message[0]
        address = struct.unpack_from("=Q", message, 16)[0] & ~(PAGE - 1)
        s.faults += 1
        for start, length, block, at in s.ranges:
            if start <= address < start + length:
                self.serve(s, block, address - start + at)
                return
        raise AssertionError("fault at 0x%x, outside every block" % address)

    def complete(self):
        """The background stream: everything that nobody asked for; then the end."""
        for s in list(self.sharers):
            for start, length, block, at in s.ranges:
                for offset in range(at, at + length, PAGE):
                    if offset not in self.present[block]:
                        self.serve(s, block, offset)
        for s in self.sharers:
            for start, length, _, _ in s.ranges:
                fcntl.ioctl(s.uffd, UFFDIO_UNREGISTER, struct.pack("=QQ", start, length))
            s.sock.send(packet(COMPLETE, 0))

    # the loop

    def step(self):
        fds = {self.listen.fileno(): (self.accept, None)}
        for s in self.sharers:
            fds[s.sock.fileno()] = (self.on_packet, s)
            if s.ranges:
                fds[s.uffd] = (self.on_fault, s)
        for fd in select.select(list(fds), [], [], 0.05)[0]:
            call, s = fds[fd]
            if s is None or s in self.sharers:
                call(s)

    def accept(self, _):
        self.sharers.append(Sharer(self.listen.accept()[0]))

    def run(self):
        try:
            while not self.stop:
                self.step()
                if self.listen_done:
                    self.listen_done = False
                    self.complete()
        except Exception as e:      # told by the test, which looks at .error
            self.error = e
            for s in self.sharers:
                s.sock.close()
        self.listen.close()

    def die(self):
        """Gone without a word; the userfaultfds go with it."""
        self.stop = True
        self.thread.join()
        for s in self.sharers:
            s.sock.close()
            os.close(s.uffd)


# --- driving sharers ---

class Process:
    def __init__(self, *args):
        self.p = subprocess.Popen([SHARER, *args], stdout=subprocess.PIPE, text=True)
        self.events = []
        self.more = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.p.stdout:
            with self.more:
                self.events.append(json.loads(line))
                self.more.notify_all()
        with self.more:
            self.events.append({"event": "eof"})
            self.more.notify_all()

    def find(self, name):
        return [e for e in self.events if e["event"] == name]

    def wait(self, name):
        with self.more:
            self.more.wait_for(lambda: self.find(name) or self.find("eof"), PATIENCE)
        got = self.find(name)
        assert got, "no %s, but %s" % (name, self.events)
        return got[0]

    def ends(self, code):
        assert self.p.wait(PATIENCE) == code, "%s, %s" % (self.p.returncode, self.events)
        self.reader.join()

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()


class Room:
    """A directory with a socket, a daemon and its sharers; nothing of it is left behind."""

    def __init__(self, content, **how):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, "register")
        self.daemon = Daemon(self.path, content, **how)
        self.processes = []

    def start(self, name, *args):
        p = Process("--socket", self.path, "--name", name, *args)
        self.processes.append(p)
        return p

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for p in self.processes:
            p.kill()
        if not self.daemon.stop:
            self.daemon.die()
        self.dir.cleanup()
        if self.daemon.error and not exc[0]:
            raise self.daemon.error


def memory(pages):
    return {"pc.ram": random.randbytes(pages * PAGE)}


def check_digests(room, reference, *others):
    """What each process saw, beside the file itself: the same, and the daemon's content."""
    for name, content in room.daemon.content.items():
        digests = [[e["xxh3_128"] for e in p.find("digest") if e["block"] == name]
                   for p in (reference, *others)]
        assert all(len(d) == 1 and d == digests[0] for d in digests), digests
        path = [e["path"] for e in reference.find("memfd") if e["block"] == name]
        if path:
            data = open(path[0], "rb").read()
            assert hashlib.sha256(data).digest() == hashlib.sha256(content).digest()


def test_main_sharer():
    """a main sharer goes from hello to complete"""
    content = memory(256)
    with Room(content, package=b"QEVM device state") as room:
        p = room.start("vmm", "--block", "pc.ram,size=1M", "--threads", "8", "--loaded-after", "30",
                       "--want", "pc.ram,offset=4K,length=100,class=dma")
        assert p.wait("package")["bytes"] == 17
        assert p.find("package")[0]["device_offset"] == 2 and p.find("package")[0]["seals"] == 15
        t = p.wait("touched")
        assert t["pages"] == 256 and 0 < t["p50_us"] <= t["p99_us"] <= t["max_us"], t
        assert t["faulted"] >= room.daemon.sharers[0].faults > 0
        room.daemon.listen_done = True
        p.wait("digest")
        check_digests(room, p)
        order = [e["event"] for e in p.events]
        assert order.index("running") < order.index("touching") < order.index("first-touch")
        assert p.wait("loaded")["t_us"] - p.wait("package")["t_us"] >= 30000
        assert room.daemon.sharers[0].kinds == [HELLO, BLOCK, READY, WANT, LOADED]
        assert room.daemon.wanted == [("vmm", "pc.ram", 4096, 100, 2)]


def test_two_processes():
    """two processes on one memfd see the same memory, each fault is woken (S1-39)"""
    content = {"pc.ram": random.randbytes(1 << 20), "pc.bios": random.randbytes(1 << 18)}
    with Room(content, expect=2, package=b"QEVM") as room:
        vmm = room.start("vmm", "--block", "pc.ram,size=1M", "--block", "pc.bios,size=256K",
                         "--threads", "8", "--touch", "write", "--exit-after-complete",
                         "--touch-from", "listening")
        vmm.wait("ready")
        paths = {e["block"]: e["path"] for e in vmm.find("memfd")}
        back = room.start("net0", "--role", "sharer", "--threads", "8", "--seed", "5",
                          "--exit-after-complete", *[a for b, p in paths.items() for a in (
                              "--block", "%s,size=%d,memfd=%s" % (b, len(content[b]), p))])
        assert back.wait("touched")["pages"] == vmm.wait("touched")["pages"] == 320
        seen = {e["block"]: open(e["path"], "rb").read() for e in vmm.find("memfd")}
        assert seen == content
        room.daemon.listen_done = True
        vmm.ends(0)
        back.ends(0)
        assert {e["block"]: e["xxh3_128"] for e in vmm.find("digest")} == \
               {e["block"]: e["xxh3_128"] for e in back.find("digest")}


def test_private():
    """private memory is registered by its address"""
    content = memory(64)
    with Room(content, package=b"QEVM") as room:
        p = room.start("vmm", "--block", "pc.ram,size=256K,private=on", "--digest",
                       os.path.join(room.dir.name, "digests"), "--threads", "3")
        p.wait("touched")
        ranges = room.daemon.sharers[0].ranges
        assert [r[1:] for r in ranges] == [(1 << 18, "pc.ram", 0)]
        with open("/proc/%d/mem" % p.p.pid, "rb") as f:
            f.seek(ranges[0][0])
            assert f.read(1 << 18) == content["pc.ram"]
        room.daemon.listen_done = True
        digest = p.wait("digest")
        lines = [json.loads(l) for l in open(os.path.join(room.dir.name, "digests"))]
        assert lines == [{k: digest[k] for k in ("block", "size", "xxh3_128")}]
        assert room.daemon.sharers[0].kinds == [HELLO, BLOCK, MAPPING, READY, LOADED]


def test_self_registered():
    """memory that the process registered itself is only named"""
    with Room(memory(64), package=b"QEVM") as room:
        p = room.start("vmm", "--block", "pc.ram,size=256K,offset=64K", "--self-register",
                       "--threads", "2", "--order", "linear")
        assert p.wait("touched")["pages"] == 64
        assert room.daemon.sharers[0].registered_itself == 1
        room.daemon.listen_done = True
        p.wait("digest")
        data = open(p.find("memfd")[0]["path"], "rb").read()
        assert data == bytes(65536) + room.daemon.content["pc.ram"]


def test_hold():
    """nothing is touched before the trigger file is there"""
    with Room(memory(16), package=b"QEVM") as room:
        trigger = os.path.join(room.dir.name, "go")
        p = room.start("vmm", "--block", "pc.ram,size=64K", "--hold", trigger)
        p.wait("running")
        time.sleep(0.2)
        assert room.daemon.sharers[0].faults == 0 and not p.find("touching")
        open(trigger, "w").close()
        assert p.wait("touched")["pages"] == 16


def test_leave():
    """a sharer unmaps and leaves in the middle"""
    with Room(memory(256), package=b"QEVM") as room:
        p = room.start("vmm", "--block", "pc.ram,size=1M", "--leave-after", "40", "--threads", "4")
        assert p.wait("touched")["pages"] == 40
        p.wait("left")
        p.ends(0)


def test_load_fails():
    """a load that fails is told with its text"""
    with Room(memory(16), package=b"QEVM") as room:
        p = room.start("vmm", "--block", "pc.ram,size=64K", "--load-fail", "no \"virtio-9p\" here",
                       "--exit-after-complete")
        assert p.wait("failed")["text"] == "load: no \"virtio-9p\" here"
        p.ends(2)


def test_refused():
    """refusals reach the user in words"""
    with Room(memory(16), expect=9) as room:
        first = room.start("vmm", "--block", "pc.ram,size=64K")
        first.wait("ready")
        second = room.start("vmm", "--block", "pc.ram,size=64K")
        assert second.wait("error") == {**second.find("error")[0], "error": EEXIST,
                                        "text": "hello: name vmm is taken"}
        second.ends(1)
        third = room.start("other", "--block", "pc.ram,size=128K")
        assert "131072 bytes: unknown here" in third.wait("error")["text"]
        third.ends(1)


def test_garbage():
    """a daemon that talks garbage ends the connection, not the process"""
    def script(daemon, s, kind, serial):
        if kind == READY:
            s.sock.send(b"\xff" * 40)
        return kind == READY
    with Room(memory(16), script=script) as room:
        p = room.start("vmm", "--block", "pc.ram,size=64K")
        assert "magic" in p.wait("error")["text"]
        p.ends(1)


def test_daemon_dies():
    """threads of a dead daemon's sharer stay blocked, its memory is not zeroes"""
    def script(daemon, s, kind, serial):
        return False
    with Room(memory(64), package=b"QEVM", script=script) as room:
        room.daemon.serve = lambda s, block, offset: None       # reads faults, answers none
        p = room.start("vmm", "--block", "pc.ram,size=256K", "--threads", "4")
        p.wait("touching")
        while room.daemon.sharers[0].faults < 4:
            time.sleep(0.01)
        room.daemon.die()
        p.wait("disconnected")
        time.sleep(0.3)
        assert p.p.poll() is None and not p.find("first-touch") and not p.find("touched")
        states = [open("/proc/%d/task/%s/wchan" % (p.p.pid, t)).read()
                  for t in os.listdir("/proc/%d/task" % p.p.pid)]
        assert all(s == "0" for s in states) or "handle_userfault" in states, states


TESTS = [test_main_sharer, test_two_processes, test_private, test_self_registered, test_hold, test_leave,
         test_load_fails, test_refused, test_garbage, test_daemon_dies]


def may_use_userfaultfd():
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(323, os.O_CLOEXEC)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def main():
    if os.uname().machine != "x86_64" or not may_use_userfaultfd():
        print("1..0 # SKIP needs x86-64 and the right to a userfaultfd for kernel accesses")
        return 0
    seed = int(os.environ.get("POSTCOPY_SEED", random.randrange(1 << 32)))
    random.seed(seed)
    print("# seed %d" % seed)
    print("1..%d" % len(TESTS))
    failed = 0
    for n, test in enumerate(TESTS, 1):
        try:
            test()
            print("ok %d - %s" % (n, test.__doc__), flush=True)
        except Exception as e:
            failed += 1
            trace = "".join(traceback.format_exception(e)).rstrip().replace("\n", "\n# ")
            print("not ok %d - %s\n# %s" % (n, test.__doc__, trace), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
