#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's QMP client and its readers of the human monitor's texts, against real QEMUs.

What they make of QEMU's words is compared with what the kernel says of QEMU's process.
"""
import functools
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from harness import Failure, built, check, check_equal, main, skip_all, wait_for

CLIENT = built("tests/lib/monitor")
MIB = 1 << 20
MEMORIES = {
    "anonymous": ([], 64, {"pc.ram": 64}),
    "file": (["-object", "memory-backend-file,id=pc.ram,size=64M,share=on,mem-path={dir}/ram",
              "-machine", "pc,memory-backend=pc.ram"], 64, {"pc.ram": 64}),
    "memfd": (["-object", "memory-backend-memfd,id=pc.ram,size=64M,share=on",
               "-machine", "pc,memory-backend=pc.ram"], 64, {"pc.ram": 64}),
    "numa": (["-smp", "2", "-object", "memory-backend-memfd,id=m0,size=32M,share=on",
              "-object", "memory-backend-memfd,id=m1,size=32M,share=on",
              "-numa", "node,memdev=m0", "-numa", "node,memdev=m1"], 64, {"m0": 32, "m1": 32}),
    "huge": (["-object", "memory-backend-memfd,id=pc.ram,size=32M,share=on,hugetlb=on,hugetlbsize=2M",
              "-machine", "pc,memory-backend=pc.ram"], 32, {"pc.ram": 32}),
}


class Talk:
    """A client that is started first, a QEMU that comes later, and what was said."""

    def __init__(self, case, binary, options, *steps, mib=64):
        path = case.path("qmp")
        self.client = case.spawn("client", [CLIENT, path, *steps])
        wait_for("the client to say what it waits for", lambda: self.find("waits"))
        check("appear: " + path in self.find("waits")[0]["waits"], f"it says {self.find('waits')[0]}")
        self.qemu = case.spawn("qemu", [binary, "-accel", "tcg", "-nodefaults", "-display", "none",
                                        "-m", str(mib), *[o.format(dir=case.dir) for o in options],
                                        "-qmp", f"unix:{path},server=on,wait=off"])

    def lines(self):
        return [json.loads(line) for line in self.client.lines()]

    def find(self, key, value=None):
        return [l for l in self.lines() if key in l and value in (None, l[key])]

    def step(self, name):
        """The one line of this step, once it is there."""
        def there():
            return self.find("step", name) or (not self.client.running() and "over")
        found = wait_for(f"the answer to {name}", there)
        if found == "over":
            found = self.find("step", name)
        check_equal(len(found), 1, f"lines of step {name} in {self.lines()}")
        return found[0]

    def wait(self, status=0):
        check_equal(self.client.wait(), status, f"status of the client after {self.lines()}")

    def mapping(self, address):
        """(start, end, offset, inode) of the mapping in QEMU that holds this address."""
        with open(f"/proc/{self.qemu.pid}/maps", encoding="ascii") as f:
            for line in f:
                words = line.split()
                start, end = (int(x, 16) for x in words[0].split("-"))
                if start <= address < end:
                    return start, end, int(words[2], 16), int(words[4])
        raise Failure(f"nothing is mapped at {address:#x}")


def blocks_and_places(case, binary, memory):
    """Blocks, flat view and addresses; each address is where the kernel has the memory."""
    options, mib, rams = MEMORIES[memory]
    if memory == "huge":
        vm.reserve_hugepages(case, 16)
    talk = Talk(case, binary, [*options, "-vga", "std", "-S"], "ramblock", "flatview", "memdev",
                "gpa2hva=0", "human=gpa2hva 0xfee00000", "event=never", mib=mib)
    ready = talk.step("ready")
    check_equal(ready["pid"], talk.qemu.pid, "the process behind the socket")
    blocks = {b["name"]: b for b in talk.step("ramblock")["blocks"]}
    check({"pc.bios", "pc.rom", "/rom@etc/acpi/tables", *rams} <= set(blocks), f"blocks {list(blocks)}")
    check_equal(sum(name.endswith("vga.vram") for name in blocks), 1, "blocks of video RAM")
    ranges = talk.step("flatview")["ranges"]
    first = talk.step("gpa2hva")
    check_equal((first["name"], first["guest"]), (ranges[0]["name"], 0), "what is at 0")
    for name, size in rams.items():
        check_equal(blocks[name]["used"], size * MIB, f"size of {name}")
        check_equal(blocks[name]["page_size"], 2 * MIB if memory == "huge" else 4096, f"pages of {name}")
        seen = sum(r["last"] - r["start"] + 1 for r in ranges if r["name"] == name)
        check(size * MIB - 512 * 1024 <= seen <= size * MIB, f"{name}: {seen} bytes in the flat view")
        if name == first["name"] and "address" in blocks[name]:
            check_equal(first["address"], blocks[name]["address"], f"two words on where {name} is")
        address = blocks[name].get("address", first["address"] if name == first["name"] else None)
        if address:
            check_mapping(talk, memory, address, size * MIB)
    if ready["number"] <= 702 or ready["number"] >= 1000:   # nobody looked at what is between
        check_equal({"address" in b for b in blocks.values()}, {ready["number"] >= 1000}, "addresses are told")
    check_equal(talk.step("human")["value"].strip(), "Memory at address 0xfee00000 is not RAM", "a device")
    told = {m.get("id"): m["size"] for m in talk.step("memdev")["value"]}
    check_equal({n: told.get(n, s * MIB) for n, s in rams.items()}, {n: s * MIB for n, s in rams.items()},
                "memory backends")


def check_mapping(talk, memory, address, size):
    start, end, offset, inode = talk.mapping(address)
    if memory == "anonymous":
        check(start <= address and address + size <= end and inode == 0, "it is not anonymous memory")
    else:
        check_equal((start, offset), (address, 0), "the mapping of the RAM")
        check(end - start >= size and inode != 0, "it is not the file's mapping")


def life(case, binary):
    """Events, refusals, a deadline while QEMU stands still, and the end."""
    talk = Talk(case, binary, ["-S"], "status", "cont", "event=RESUME", "stop", "event=STOP",
                "capability=events", "qom=/machine:type", "incoming=unix:/nowhere", "deadline=300", "freeze",
                "migrate", "thaw", "deadline=20000", "memdev", "quit", "event=SHUTDOWN", "closed")
    talk.wait()
    version = talk.step("ready")
    check_equal(version["number"], int(version["version"].split(".")[0]) * 100
                + int(version["version"].split(".")[1]), "the version as a number")
    check_equal(talk.step("status")["value"]["running"], False, "it runs")
    check(talk.step("status")["status"] in ("prelaunch", "paused"), "its status")
    check(talk.step("qom")["value"].startswith("pc-i440fx-"), "the type of the machine")
    refused = talk.step("incoming")
    check_equal((refused["outcome"], refused["class"]), ("refused", "GenericError"), "-incoming is missing")
    check(refused["text"].startswith("migrate-incoming: ") and len(refused["text"]) > 25, "it does not say why")
    check_equal(talk.step("migrate")["outcome"], "deadline", "a command to a QEMU that stands still")
    check("300 ms" in talk.step("migrate")["text"], "the text of the deadline")
    check_equal(talk.step("memdev")["outcome"], "ok", "the next one; the late answer is dropped")
    check_equal([e["event"] for e in talk.find("event") if e["kind"]], ["RESUME", "STOP", "SHUTDOWN"], "events")
    end = talk.find("closed")[0]["closed"]  # by a close, or by a reset when something was unread
    check("closed its monitor" in end or "the peer is gone" in end, f"how it ended: {end}")


def incoming(case, binary):
    path = case.path("in")
    talk = Talk(case, binary, ["-S", "-incoming", "defer"], "status", "capability=events",
                "incoming=unix:" + path, "migrate", "event=MIGRATION", "event=never")
    check_equal(talk.step("status")["status"], "inmigrate", "status")
    check_equal(talk.step("incoming")["outcome"], "ok", "migrate-incoming")
    check_equal(talk.step("migrate")["outcome"], "ok", "query-migrate")
    wait_for("the event of the set-up", lambda: talk.find("status", "setup"))
    check(os.path.exists(path), "it does not listen")
    talk.qemu.kill()
    talk.wait(1)
    check(talk.find("closed"), "the end was not told")


def second_client(case, binary):
    """QEMU serves one client at a time; the other one is told what it may be."""
    talk = Talk(case, binary, ["-S"], "event=never")
    talk.step("ready")
    other = case.spawn("other", [CLIENT, case.path("qmp"), "status"])
    def waits():
        return [l for l in map(json.loads, other.lines()) if "is there another" in l.get("waits", "")]
    wait_for("the other client to say what it waits for", waits)
    talk.client.stop()
    check_equal(other.wait(), 0, "status of the other client once the first has gone")


def monitor_for_people(case, binary):
    path = case.path("qmp")
    client = case.spawn("client", [CLIENT, path, "status"])
    case.spawn("qemu", [binary, "-accel", "tcg", "-nodefaults", "-display", "none", "-S",
                        "-chardev", f"socket,id=m,path={path},server=on,wait=off", "-mon", "chardev=m"])
    check_equal(client.wait(), 1, "status of the client")
    check("mode=control" in client.lines()[-1], f"it says {client.lines()[-1]}")


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for memory in MEMORIES:
            yield f"{label}: {memory} memory", partial(blocks_and_places, binary=binary, memory=memory)
        for function in (life, incoming, second_client, monitor_for_people):
            yield f"{label}: {function.__name__.replace('_', ' ')}", partial(function, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if not CLIENT:
        skip_all("tests/lib/monitor is not built")
    main(list(cases()))
