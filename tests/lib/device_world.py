# SPDX-License-Identifier: GPL-2.0-or-later
"""A device in a session: a vfio-user server that prints what it is asked, a daemon that has it, a VM and a source."""
import json
import os
import struct

import devstate
from devstate import Device, dial, greeting
from harness import built, check, check_equal, wait_for
from relay import Relay
from service import BLOCK, MIB, PAGE, Service

SESSION = "0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e21"
RUNNING = 2
DMA_MAP, DMA_UNMAP = 2, 3
OURS, THEIRS = 8, 7                     # seeds of the state of the device, and of its twin
IOVA = 0x100000
SIZE = 4 * MIB
WORK = 300                              # words that the device looks at when it begins to run, if it is told to
PATIENTLY = 600000                      # ms: a deadline that nothing here passes


def whole_state():
    return devstate.device_stream(THEIRS, 20000)


def region_segments(size=4096):
    """The same as a device of the first version saves it: each segment has its number and its length in front."""
    body = whole_state()
    pieces = [body[at:at + size - 8] for at in range(0, len(body), size - 8)]
    return [struct.pack("<II", number, len(piece)) + piece for number, piece in enumerate(pieces)]


class Server:
    """The device, and what was asked of it."""

    def __init__(self, case, *options, name="nic", seed=OURS):
        self.path = case.path(f"{name}.sock")
        self.child = case.spawn(f"vfiouser-{name}", [
            built("tests/lib/vfiouser-server"),
            ",".join((f"path={self.path},seed={seed},trace=on", *options))])
        wait_for("the server to listen", lambda: os.path.exists(self.path))

    def said(self, event):
        return [e for e in map(json.loads, filter(lambda line: line.startswith("{"), self.child.lines()))
                if e["event"] == event]

    def commands(self):
        return self.said("command")

    def ran(self):
        """The moments at which it runs with the state of its twin."""
        return [c for c in self.commands() if c["state"] == RUNNING and c["seed"] == THEIRS]

    def check_trace(self):
        """I1 I3: it never had a page that was not there, so it never ran with one."""
        for command in self.commands():
            check_equal(command["missing"], 0, f"pages that are missing under {command}")


class World:
    """A daemon with one device, its VM, and a source."""

    def __init__(self, case, server, *options, dma="gate", mandatory="on", deadline=PATIENTLY, maps=(f"block={BLOCK}",),
                 relay=False, source=("--commit-ping",), threads=0, stay=True,
                 size=SIZE, expect=("vm",)):
        self.case, self.server = case, server
        self.channel = "unix:" + case.path("channel")
        given = [f"--vfio=id=nic,vfio-user={server.path},dma={dma},mandatory={mandatory},deadline={deadline}"]
        given += [f"--dma-map=device=nic,iova={IOVA:#x},{one}" for one in maps]
        self.service = Service(case, "--device-channel", f"{self.channel},session={SESSION}", *given, *options,
                               stay=stay, size=size, expect=expect)
        self.image = case.random.randbytes(size)
        self.relay = None
        if relay:
            self.relay = Relay(case, "unix:" + case.path("relay"), self.service.uri)
        self.source_options, self.threads = source, threads
        self.vm = self.source = None

    def begin(self, patient=True, **vm):
        """@patient: only what is asked for comes, until the end.  @vm: options of the main sharer."""
        path = self.case.path("image")
        with open(path, "wb") as image:
            image.write(self.image)
        self.vm = self.service.sharer("vm", "main", threads=self.threads, **vm)
        start = self.service.patient_source if patient else self.service.source
        self.source = start(*self.source_options, to=self.relay and self.relay.uri,
                            blocks=[f"{BLOCK},size={len(self.image)},file={path}"])

    def device(self, name="nic"):
        return [d for d in self.service.control("devices") if d["id"] == name][0]

    def wait_stage(self, *stages, name="nic"):
        return wait_for(f"{name} to be {' or '.join(stages)}",
                        lambda: self.device(name)["stage"] in stages and self.device(name))

    def send_state(self, *segments, attempt=1, name="nic", kind=devstate.STREAM):
        """Its twin's, if nothing else is said."""
        device = Device(SESSION, 0, name, kind)
        device.sequence = attempt - 1
        sock = dial(self.channel)
        sock.sendall(greeting(SESSION) + device.head() + b"".join(map(device.segment, segments or (whole_state(),))) +
                     device.end())
        sock.shutdown(1)
        self.case.defer(sock.close)

    def complete(self):
        self.service.check_same(self.source, sharers=[self.vm])

    def refused(self, text):
        """The source's VM goes on, and this one was never told to run."""
        reason = self.service.wait_state("failed")["error"]["reason"]
        check(text in reason, reason)
        self.source.ended("source-resumes")
        check(not self.vm.has("running"), "it was told to run")
        check_equal(self.server.ran(), [], "its device ran")

    def words(self):
        """What the device sees when it looks all over one range that is the whole block."""
        at = ((n * 5 * PAGE) % SIZE for n in range(WORK))
        return sum(struct.unpack_from("<Q", self.image, offset)[0] for offset in at) & (1 << 64) - 1
