# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM of ours whose memory arrives while a real back-end of a disk reads and writes it.

    stage = Stage(case, "disk")
    ring = Ring(stage.image); some_reads(case, ring)
    stage.begin(*PATIENT)              # a FrontEnd does its part, and
    check_reads(stage, ring, content)
"""
import os

from harness import check_equal, wait_for
from service import BLOCK, MIB, PAGE, Service
from vhostuser import SECTOR

SIZE = 16 * MIB
#: What a VMM tells a back-end about the RAM of a small PC.
REGIONS = [(0, 0xA0000), (0xC0000, SIZE - 0xC0000)]


class Stage:
    """A daemon, its own VM with its memory in a file that others may open, and what the source holds.

    relay: the source reaches the daemon through it, if set before begin().
    """

    def __init__(self, case, *names, size=SIZE):
        os.chmod(case.dir, 0o711)
        self.case = case
        self.image = bytearray(case.random.randbytes(size))
        self.image_path = case.path("image")
        self.ram = f"/dev/shm/postcopy-{os.getpid()}-{len(case.children)}"
        with open(self.ram, "wb") as ram:
            ram.truncate(size)
        case.defer(lambda: os.unlink(self.ram))
        os.chmod(self.ram, 0o666)
        register = case.path("register")
        self.service = Service(case, "--register-path", register, "--register-group", "nogroup",
                               expect=("vm", *names), size=size)
        self.service.register = register
        self.vm = self.service.sharer("vm", "main", memory=f"memfd={self.ram}")
        self.source = self.relay = None

    def begin(self, *options):
        """The source sends its package; faults are served from here on."""
        with open(self.image_path, "wb") as image:
            image.write(self.image)
        self.source = self.service.source(*options, to=self.relay and self.relay.uri,
                                          blocks=[f"{BLOCK},size={len(self.image)},file={self.image_path}"])
        self.vm.event("listening")

    def finish(self):
        """Everything is here: the memory as it is."""
        self.source.completed()
        self.vm.event("complete")
        with open(self.ram, "rb") as ram:
            memory = ram.read()
        return memory

    def pid_of(self, name):
        return [s["pid"] for s in self.service.control("sharers") if s["name"] == name]


def disk(case, sectors=4096):
    path = case.path("disk")
    content = case.random.randbytes(sectors * SECTOR)
    with open(path, "wb") as file:
        file.write(content)
    return path, content


def some_reads(case, ring, count=12):
    """Requests all over RAM: below and above the hole of a PC, and the pages that they cross."""
    places = [0x10000 + PAGE * 8 * n for n in range(count // 2)]
    places += [3 * MIB + PAGE * 16 * n for n in range(count // 2)]
    for place in places:
        length = SECTOR * case.random.randrange(1, 16)
        sector = case.random.randrange(4096 - 16)
        ring.read(sector, place, place + PAGE + 512 * case.random.randrange(8), length, place + 6 * PAGE)


def _after(image, ring, content):
    """The image as it is when the requests have been served, but for the used ring.

    @content: of the disk, when they have been.
    """
    wanted = bytearray(image)
    for sector, data, length, status in ring.reads:
        wanted[data:data + length] = content[sector * SECTOR:sector * SECTOR + length]
        wanted[status] = 0
    return wanted


def check_reads(stage, ring, content):
    """All that was queued was done, and nothing else was to the memory."""
    memory = stage.finish()
    check_equal(ring.finished(memory), len(ring.reads), "requests served")
    wanted = _after(stage.image, ring, content)
    wanted[ring.used:ring.used + PAGE] = memory[ring.used:ring.used + PAGE]
    wrong = [page for page in range(0, SIZE, PAGE) if memory[page:page + PAGE] != wanted[page:page + PAGE]]
    check_equal(wrong, [], "pages that are wrong")


def wait_rung(front):
    """Without looking into memory that is not here: the back-end rings when it has done something."""
    os.set_blocking(front.call_fd, False)

    def rung():
        try:
            os.eventfd_read(front.call_fd)
            return True
        except BlockingIOError:
            return False
    wait_for("the back-end to ring", rung)
