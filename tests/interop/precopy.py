#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The synthetic precopy stream into an unmodified QEMU (external-dest 6).

A guest leaves its QEMU by postcopy, all of it into the reference receiver; tests/lib/precopy makes of
the recording what a hand-over sends.  The destination is told of the RAM and never sent it: its
content is in the file already, as if it had been faulted in.  Then the guest goes on and checks
itself.
"""
import functools
import mmap
import os
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "flow")]
# pylint: disable=wrong-import-position
import vm
from harness import PATIENCE, Failure, built, check, check_equal, main, skip_all, wait_for
from source_receiver import PAGE, Receiver

WRITER = built("tests/lib/precopy")
MIB = 32
DESCRIPTION = b"\0\0\0\2{}"


class Source(Receiver):
    """The reference receiver with everything a real source sends, large pages too."""

    def __init__(self, huge):
        super().__init__("unix")
        self.capture = bytearray()
        self._huge = huge

    def huge(self, name):
        return self._huge and name == vm.RAM_BLOCK


class Snapshot:
    """A guest that has left its QEMU: the recording, and what its RAM holds."""

    def __init__(self, case, binary, backend="memfd", stop=False):
        self.case = case
        self.backend = backend
        source = vm.Vm(case, binary, mib=MIB, backend=backend)
        source.wait_guest(rounds=1)
        if stop:
            source.qmp.command("stop")
        receiver = Source(backend == "hugetlb")
        case.defer(receiver.close)
        source.set_capabilities("postcopy-ram")
        source.migrate(receiver.address, at_once=True)
        receiver.run(PATIENCE)
        check_equal(receiver.error, None, "the reference receiver")
        source.wait_migration("completed")
        source.child.stop()
        self.pages = receiver.blocks[vm.RAM_BLOCK].data
        self.recording = case.path("recording")
        with open(self.recording, "wb") as f:
            f.write(receiver.capture)

    def stream(self, *lazy):
        """The synthetic stream without the pages of @lazy, and the source's run state."""
        done = subprocess.run([WRITER, self.recording, *lazy], capture_output=True, timeout=60, check=False)
        check_equal(done.returncode, 0, f"status of the writer ({done.stderr.decode()})")
        check(done.stdout.endswith(b"\0\6" + DESCRIPTION), "the stream has no description at its end")
        return done.stdout, done.stderr.decode().strip()


class Destination:
    """A QEMU that waits for a migration, and the connection to it."""

    def __init__(self, case, binary, snapshot):
        self.vm = vm.Vm(case, binary, name="destination", mib=MIB, backend=snapshot.backend,
                        incoming=True, extra=["-S"])
        self.path = case.path("incoming")
        self.vm.incoming("unix:" + self.path)
        self.socket = socket.socket(socket.AF_UNIX)
        case.defer(self.socket.close)
        check_equal(self.vm.vm_status(), "inmigrate", "the destination before")

    def fill(self, snapshot):
        """Its RAM, through a descriptor of our own, before it hears of any of it."""
        fd = os.open(f"/proc/self/fd/{self.vm.ram}", os.O_RDWR)
        with mmap.mmap(fd, self.vm.length) as memory:  # large pages know no write()
            os.close(fd)
            for page, data in snapshot.pages.items():
                if any(data):
                    memory[page * PAGE:(page + 1) * PAGE] = data

    def wait_loaded(self):
        """Seconds until it says that it has loaded; it must not run yet."""
        start = time.monotonic()
        def loaded():
            self.vm.child.check_running()
            return self.vm.vm_status() != "inmigrate"
        wait_for("the destination to load", loaded, interval=0.002)
        took = time.monotonic() - start
        check_equal(self.vm.vm_status(), "paused", "the destination after")
        self.vm.wait_migration("completed")
        check_equal(self.vm.child.errors().strip(), "", "what it complains about")
        return took

    def check_goes_on(self):
        self.vm.qmp.command("cont")
        self.vm.wait_guest(rounds=2)
        check_equal(self.vm.guest().errors, 0, "errors the guest found")

    def send(self, data, half_close):
        """Connects only now: from 8.0 on QEMU's main thread waits for the first four bytes of a
        connection, and its monitor with it."""
        self.socket.connect(self.path)
        self.socket.sendall(data)
        if half_close:
            self.socket.shutdown(socket.SHUT_WR)


def loads(case, binary, half_close, backend="memfd"):
    """The RAM is in its file, all else in the stream."""
    if backend == "hugetlb":
        vm.reserve_hugepages(case, 2 * MIB * vm.MIB // vm.HUGE)
    snapshot = Snapshot(case, binary, backend)
    stream, state = snapshot.stream(vm.RAM_BLOCK)
    check_equal(state, "state running", "run state")
    check(len(stream) < 4 * vm.MIB, f"{len(stream)} bytes: pages that were to be left out are in it")
    destination = Destination(case, binary, snapshot)
    destination.fill(snapshot)
    destination.send(stream, half_close)
    case.note(f"{len(stream)} bytes, loaded within {destination.wait_loaded() * 1000:.0f} ms")
    destination.check_goes_on()


def loads_whole(case, binary):
    """Every page is in the stream, so it also carries blocks that are not small."""
    snapshot = Snapshot(case, binary)
    stream, _state = snapshot.stream()
    destination = Destination(case, binary, snapshot)
    destination.send(stream, half_close=False)
    destination.wait_loaded()
    destination.check_goes_on()


def paused_source(case, binary):
    snapshot = Snapshot(case, binary, stop=True)
    stream, state = snapshot.stream(vm.RAM_BLOCK)
    check_equal(state, "state paused", "run state")
    destination = Destination(case, binary, snapshot)
    destination.fill(snapshot)
    destination.send(stream, half_close=True)
    destination.wait_loaded()


def trap_without_description(case, binary):
    """Why the stream ends as it does: left open and without a description, it loads and never says so."""
    snapshot = Snapshot(case, binary)
    stream, _state = snapshot.stream(vm.RAM_BLOCK)
    good = Destination(case, binary, snapshot)
    good.fill(snapshot)
    good.send(stream, half_close=False)
    took = good.wait_loaded()
    good.vm.quit()
    trapped = Destination(case, binary, snapshot)
    trapped.fill(snapshot)
    trapped.send(stream[:-len(b"\6" + DESCRIPTION)], half_close=False)
    time.sleep(max(1.0, 20 * took))
    check_equal(trapped.vm.vm_status(), "inmigrate", "after twenty times what it takes")
    trapped.socket.shutdown(socket.SHUT_WR)
    wait_for("it to load when nothing can follow", lambda: trapped.vm.vm_status() == "paused")
    check("vmdescription" in trapped.vm.child.errors(), "it does not even warn")


def broken_stream(case, binary, cut):
    """A destination ends on a stream it cannot take: whoever sent it learns it from the connection."""
    snapshot = Snapshot(case, binary)
    stream, _state = snapshot.stream(vm.RAM_BLOCK)
    destination = Destination(case, binary, snapshot)
    if cut:
        stream = stream[:len(stream) // 2]
    else:
        stream = stream.replace(b"pc-i440fx-", b"pc-i440fy-", 1)
    try:
        destination.send(stream, half_close=True)
    except (BrokenPipeError, ConnectionResetError):
        pass
    if destination.vm.child.wait() == 0:
        raise Failure("it ended as if all were well")


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for name, function in (
                ("half-closed", partial(loads, half_close=True)),
                ("left open", partial(loads, half_close=False)),
                ("2 MiB pages", partial(loads, half_close=True, backend="hugetlb")),
                ("the whole RAM in the stream", loads_whole),
                ("source was paused", paused_source),
                ("no description, left open: the trap", trap_without_description),
                ("cut in the middle", partial(broken_stream, cut=True)),
                ("another machine type", partial(broken_stream, cut=False))):
            yield f"{label}: {name}", partial(function, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if not WRITER:
        skip_all("tests/lib/precopy is not built")
    main(list(cases()))
