#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices leave: quiesced, stopped, saved and heard of, in that order, or they run again.  (F29-F32, F49, S3-43, S3-49,
S3-66, S3-76)"""
import json
import os
import signal
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from devstate import Device as Records  # noqa: E402
from devstate import device_stream, dial, greeting, xxh64  # noqa: E402
from harness import PATIENCE, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from service import BLOCK, Service  # noqa: E402

SESSION = "0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e21"
OTHER = "11111111-47f2-4e5b-9a4c-3d1b0a6f7e21"
RUNNING = 2
PROGRAMS = ("postcopyd", "postcopyctl", "postcopy-source", "tests/lib/vfiouser-server", "tests/lib/sharer")


class Device:
    """A vfio-user server and its device."""

    def __init__(self, case, name, generation, size, options="", segment=4096, seed=None):
        self.name, self.size, self.seed = name, size, seed or case.seed & 0xffffffff | 8
        self.segment = segment if generation == 1 else 0
        options += f",segment={segment}"
        self.path = case.path(f"{name}.sock")
        self.child = case.spawn(f"device-{name}", [
            built("tests/lib/vfiouser-server"),
            f"path={self.path},generation={generation},seed={self.seed},size={size}{options}"])
        wait_for(f"{name} to listen", lambda: "READY" in self.child.lines())

    def option(self, more=""):
        return ["--vfio", f"{self.name},vfio-user={self.path}{more}"]

    def commands(self):
        """What it was told, with trace=on."""
        return [e for e in map(json.loads, filter(lambda line: line.startswith("{"), self.child.lines()))
                if e["event"] == "command"]

    def check_saved(self, said):
        """All that it saves, computed here from its seed: while it ran and when it stood still."""
        check_equal(said["state"], "complete", self.name)
        check_equal(said["bytes"], len(self.saves()), f"bytes of {self.name}")
        check_equal(said["digest"], f"{xxh64(self.saves()):016x}", f"digest of {self.name}")

    def saves(self):
        """The first half is there while it runs.  Of v1 each segment has its number and its length in front."""
        stream = device_stream(self.seed, self.size)
        half, payload = len(stream) // 2, self.segment - 8
        if not self.segment:
            return stream
        pieces = [part[at:at + payload] for part in (stream[:half], stream[half:])
                  for at in range(0, len(part), payload)]
        return b"".join(struct.pack("<II", n, len(piece)) + piece for n, piece in enumerate(pieces))


def channel(case, *options):
    service = Service(case, "--device-channel", f"unix:{case.path('devices')},session={SESSION}", *options, expect=())
    service.channel = ["--device-channel", "unix:" + case.path("devices"), "--session", SESSION]
    return service


def states(service):
    return {d["id"]: d for d in service.status()["device_states"]}


def leave(case, devices, *options):
    """Devices only; its process."""
    number = sum(child.name.startswith("leave") for child in case.children)
    argv = [built("postcopy-source"), "--json", "--devices-apart", *options]
    for device in devices:
        argv += device if isinstance(device, list) else device.option()
    return case.spawn(f"leave{number}", argv)


def summary(child, code):
    check_equal(child.wait(PATIENCE), code, f"exit status ({child.errors()})")
    return json.loads(child.lines()[-1])


def check_running(said):
    for device in said["devices"]:
        check_equal(device["state"], "running", f"{device['id']} after the way back")


# --- they leave ---------------------------------------------------------------------------------------

def both_versions(case):
    """What arrived is what the devices saved, byte by byte, of v1 in its segments."""
    service = channel(case)
    devices = [Device(case, "nic0", 2, 300000), Device(case, "gpu0", 1, 50000, segment=5000)]
    said = summary(leave(case, devices, *service.channel), 0)
    check_equal(said["outcome"], "saved", "outcome")
    arrived = states(service)
    for device, told in zip(devices, said["devices"]):
        device.check_saved(arrived[device.name])
        check_equal(told["state"], "stop", f"state of {device.name}")
        check(arrived[device.name]["compat"].startswith("pci:"), f"what {device.name} is")
        for field in ("segments", "bytes", "digest", "kind", "rounds"):
            check_equal(told[field], arrived[device.name][field], f"{device.name}: {field}")
    check(arrived["gpu0"]["segments"] >= 10, f"{arrived['gpu0']['segments']} segments of at most 5000 bytes")
    check(all(d["rounds"] > 0 for d in said["devices"]), "nothing was read while they ran")


def with_memory(case):
    """Beside the memory: their state is there before the destination hears of the switch-over."""
    service = channel(case)
    vm = service.sharer("vm", "main", threads=1)
    device = Device(case, "nic0", 2, 20000)
    source = service.source("--precopy", "half", "--commit-ping", *device.option(), *service.channel)
    done = source.completed()
    vm.event("complete")
    check_equal(done["devices"][0]["state"], "stop", "state of the device")
    device.check_saved(states(service)["nic0"])


def to_its_twin(case):
    """From one server's device into another's, which runs with it when its memory is there; by each way, of each
    version."""
    for generation in (1, 2):
        for way in ("package", "channel"):
            twin = Device(case, f"twin{generation}{way}", generation, 100, ",trace=on")
            left = Device(case, f"nic{generation}{way}", generation, 60000, seed=7)
            uri = f"unix:{case.path(twin.name + '.channel')}"
            service = Service(case, f"--vfio=id={left.name},vfio-user={twin.path},mandatory=on,deadline=600000",
                              f"--dma-map=device={left.name},iova=0x100000,block={BLOCK}", "--device-channel",
                              f"{uri},session={SESSION}", expect=("vm",))
            vm = service.sharer("vm", "main", threads=1)
            service.source("--commit-ping", *left.option(),
                           *(["--device-channel", uri, "--session", SESSION] if way == "channel" else [])).completed()
            vm.event("running")
            wait_for(f"{twin.name} to run as what left",
                     lambda: any(c["state"] == RUNNING and c["seed"] == left.seed for c in twin.commands()))
            check_equal(service.control("devices")[0]["bytes"], len(left.saves()), "bytes that were loaded")


def not_its_twin(case):
    """S3-43: what another kind of device saved is loaded into none."""
    twin, way = Device(case, "twin", 2, 100), f"unix:{case.path('channel')}"
    service = Service(case, f"--vfio=id=nic,vfio-user={twin.path},mandatory=on,deadline=600000",
                      f"--dma-map=device=nic,iova=0x100000,block={BLOCK}", "--device-channel",
                      f"{way},session={SESSION}", expect=("vm",))
    service.sharer("vm", "main")
    stranger = Records(SESSION, 0, "nic", compat="pci:8086:1572:8086:0001")
    sock = dial(way)
    sock.sendall(greeting(SESSION) + stranger.head() + stranger.segment(device_stream(7, 100)) + stranger.end())
    source = service.source("--commit-ping")
    reason = service.wait_state("failed")["error"]["reason"]
    check("its twin is pci:8086:1572:8086:0001" in reason, reason)
    source.ended("source-resumes")


def in_the_package(case):
    """Two devices in front of the VM's own part of it, of which the main sharer hears as if they were not there."""
    service = Service(case, expect=("vm",))
    vm = service.sharer("vm", "main", threads=1)
    devices = [Device(case, "nic0", 2, 300000), Device(case, "gpu0", 1, 50000)]
    done = service.source("--commit-ping", "--devices-apart", "--device-state", "5000",
                          *devices[0].option(), *devices[1].option()).completed()
    package = vm.event("package")
    status = service.status()
    for device, told in zip(devices, done["devices"]):
        device.check_saved(states(service)[device.name])
        check_equal(told["state"], "stop", device.name)
    plain = Service(case, expect=("vm",))
    other = plain.sharer("vm", "main", threads=1)
    plain.source("--commit-ping", "--device-state", "5000").completed()
    check_equal(package["device_bytes"], other.event("package")["device_bytes"], "device part the main sharer is given")
    check_equal(status["package"]["device_bytes"], plain.status()["package"]["device_bytes"], "device part")
    check(status["package"]["bytes"] > plain.status()["package"]["bytes"] + 350000, "where was the state?")


def damaged_in_the_package(case):
    """Before the commit it is refused: the source's VM and its device run again."""
    service = Service(case, expect=("vm",))
    service.sharer("vm", "main").event("ready")
    device = Device(case, "nic0", 2, 20000)
    source = service.source("--commit-ping", *device.option(), "--fault", "corrupt@record:package")
    check_running(source.ended("source-resumes"))
    reason = service.wait_state("failed")["error"]["reason"]
    check("the state of devices in the package: " in reason and "is damaged" in reason, reason)
    check_equal(states(service)["nic0"]["state"], "dropped", "what came")


def handed_over(case):
    """--hold: whoever has the VM says that it has gone."""
    service = channel(case)
    device = Device(case, "nic0", 2, 2000)
    child = leave(case, [device], "--hold", *service.channel)
    wait_for("the state to be there", lambda: child.lines())
    child.check_running()
    device.check_saved(states(service)["nic0"])
    child.proc.send_signal(signal.SIGUSR1)
    check_equal(summary(child, 0)["devices"][0]["state"], "stop", "state")


def held_and_returned(case):
    """--hold: the VM has not gone: they run again, and can leave again."""
    service = channel(case)
    device = Device(case, "gpu0", 1, 2000)
    child = leave(case, [device], "--hold", *service.channel)
    wait_for("the state to be there", lambda: child.lines())
    child.proc.send_signal(signal.SIGTERM)
    check_equal(child.wait(PATIENCE), 1, "exit status")
    check("run again" in child.errors(), child.errors())
    summary(leave(case, [device], *service.channel), 0)
    check_equal(states(service)["gpu0"]["attempts"], 2, "attempts")
    device.check_saved(states(service)["gpu0"])


# --- they do not --------------------------------------------------------------------------------------

def cut_or_damaged(case):
    """At any byte: nothing of a device that was not whole stays, all run again, and the next attempt is whole."""
    service = channel(case)
    devices = [Device(case, "nic0", 2, 20000), Device(case, "gpu0", 1, 20000)]
    faults = ("drop@channel:20", "drop@channel:12000", "corrupt@channel:12000", "die@channel:30000",
              "corrupt@channel:35000", "truncate@channel:60")
    for fault in faults:
        said = summary(leave(case, devices, "--fault", fault, *service.channel), 1)
        check_equal((said["outcome"], said["faults_fired"]), ("failed", [fault.split("@")[0]]), fault)
        check("device channel" in said["problem"], f"{fault}: {said['problem']}")
        check_running(said)
        wait_for("what was not whole to be dropped",
                 lambda: all(d["state"] != "coming" for d in states(service).values()))
    summary(leave(case, devices, *service.channel), 0)
    for device in devices:
        device.check_saved(states(service)[device.name])


def refused(case):
    """Nobody there, another session, too much: no device stands still for it."""
    service = channel(case, "--max-device-state", "16K")
    device = Device(case, "nic0", 2, 20000)
    wrong = service.channel[:-1] + [OTHER]
    nobody = ["--device-channel", "unix:" + case.path("nobody"), "--session", SESSION]
    for way in (wrong, nobody, service.channel):
        said = summary(leave(case, [device], *way), 1)
        check("device channel" in said["problem"], said["problem"])
        check_running(said)
    check_equal([d["state"] for d in states(service).values()], ["dropped"], "what is there")


def unfinished(case):
    """I7: one that stands still, be it for memory that has not come, is not moved on."""
    service = channel(case)
    for generation in (1, 2):
        device = Device(case, f"nic{generation}", generation, 2000)
        summary(leave(case, [device], *service.channel), 0)
        said = summary(leave(case, [device], *service.channel), 1)
        check(f"device {device.name}: " in said["problem"] and "does not run" in said["problem"], said["problem"])
        check_equal(states(service)[device.name]["attempts"], 1, "attempts at sending it")


def peers(case):
    """S3-66: of several, one that cannot be quiesced could be addressed while it stands still."""
    service = channel(case)
    devices = [Device(case, "nic0", 2, 100), Device(case, "nic1", 2, 100)]
    argv = [built("postcopy-source"), "--json", *service.channel]
    for device in devices:
        argv += device.option()
    said = summary(case.spawn("leave-peers", argv), 1)
    check("device nic0" in said["problem"] and "--devices-apart" in said["problem"], said["problem"])
    check_equal(states(service), {}, "what was sent")


def one_fails(case):
    """Whatever fails names its device and ends the migration; the others run again, wherever it was."""
    outcomes = set()
    for n in range(8, 30, 3):
        service = channel(case) if n == 8 else service
        good, bad = Device(case, f"good{n}", 2, 3000), Device(case, f"bad{n}", 1, 3000, f",vice=error,at={n}")
        child = leave(case, [good, bad], *service.channel)
        code = child.wait(PATIENCE)
        said = json.loads(child.lines()[-1])
        outcomes.add(code)
        if code == 0:
            continue
        check(f"device bad{n}: " in said["problem"], said["problem"])
        check_equal([d["state"] for d in said["devices"] if d["id"] == f"good{n}"] or ["running"], ["running"], "the other")
        check(states(service).get(f"bad{n}", {}).get("state") != "complete", "the bad one is there")
    check(1 in outcomes, "nothing failed")


def one_hangs(case):
    """S3-76: a device that does not answer costs its deadline, and the others nothing."""
    service = channel(case)
    good, bad = Device(case, "good", 2, 3000), Device(case, "bad", 2, 3000, ",vice=silent,at=12")
    said = summary(leave(case, [good, bad.option(",deadline=300")], *service.channel), 1)
    check("device bad: " in said["problem"], said["problem"])
    check_equal([d["state"] for d in said["devices"] if d["id"] == "good"], ["running"], "the other")


def memory_is_refused(case):
    """The migration fails behind the devices' standstill, before the commit: they run again."""
    service = channel(case)
    service.sharer("vm", "main", load_fail="no such device").event("ready")
    device = Device(case, "nic0", 2, 20000)
    source = service.source("--commit-ping", *device.option(), *service.channel)
    check_running(source.ended("source-resumes"))


def devices_end_a_migration(case):
    """The device cannot leave: the destination hears of no switch-over, and the source keeps its VM."""
    service = channel(case)
    service.sharer("vm", "main").event("ready")
    device = Device(case, "nic0", 2, 20000)
    said = service.source(*device.option(), *service.channel, "--fault", "drop@channel:10000").ended("source-resumes")
    check("device channel" in said["problem"], said["problem"])
    check_running(said)
    check_equal(service.wait_state("failed")["committed"], False, "committed")


CASES = [
    ("F29 S3-43 both versions, while they run and when they stand still", both_versions),
    ("F49 with memory: saved before the switch-over", with_memory),
    ("F29 F35 from server to server, both versions, both ways", to_its_twin),
    ("S3-43 F35 another kind of device", not_its_twin),
    ("F49 S3-43 in the package, in front of the VM's own part", in_the_package),
    ("S3-44 S3-49 in the package, damaged", damaged_in_the_package),
    ("F49 held until the VM is handed over", handed_over),
    ("S3-45 S3-49 held, and back", held_and_returned),
    ("S3-43 S3-49 the channel is cut or damaged", cut_or_damaged),
    ("S3-44 nobody, another session, too much", refused),
    ("I7 a device that stands still already", unfinished),
    ("F32 S3-66 several that cannot be quiesced", peers),
    ("F30 S3-46 one fails, at many calls", one_fails),
    ("F31 S3-76 one does not answer", one_hangs),
    ("S3-49 the destination refuses: they run again", memory_is_refused),
    ("F49 S3-49 a device that cannot leave ends the migration", devices_end_a_migration),
]

if __name__ == "__main__":
    missing = [name for name in PROGRAMS if not built(name)]
    if missing:
        skip_all(f"not built: {', '.join(missing)}")
    main(CASES)
