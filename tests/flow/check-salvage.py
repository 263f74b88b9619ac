#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`postcopyctl salvage`: what is here, all of it, and nothing that is not.  (F59)"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import PATIENCE, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from mappedram import PAGE, ZEROES, Salvage  # noqa: E402
from service import BLOCK, MIB, Service, missing_programs  # noqa: E402

HERE = 20
LOST = 200
ROM = "rom"


class Scene:
    """A sharer and a source that sends what is asked for; a second block is nobody's."""

    def __init__(self, case, *options, memory="memfd=create", source=(), size=4 * MIB):
        self.case = case
        self.service = Service(case, *options, size=size)
        self.vm = self.service.sharer("vm", "main", memory=memory)
        blocks = [f"{BLOCK},size={size}", f"{ROM},size={64 << 10}"]
        self.source = self.service.patient_source(*source, blocks=blocks)
        self.vm.event("running")
        self.pages = size // PAGE

    def salvage(self, name="saved", status=0):
        """The exit status is this, and what was said."""
        folder = self.case.path(name)
        done = subprocess.run([built("postcopyctl"), "-r", self.service.run_dir, "salvage", folder],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        check_equal(done.returncode, status, f"exit status of salvage ({done.stderr} {done.stdout})")
        return folder if status == 0 else done.stdout + done.stderr

    def saved(self):
        return Salvage(self.salvage())

    def memory(self):
        """What the file of the shared block has, holes as zeroes."""
        with open(self.vm.path(), "rb") as src:
            return src.read()

    def blocks(self):
        return {b["name"]: b for b in self.service.control("blocks")}

    def lose(self):
        self.source.child.kill()
        self.service.wait_state("paused")


def same_pages(saved, block, memory):
    """Each page that is not missing is as it is in memory."""
    wrong = [page for page in range(saved.blocks[block].pages)
             if not saved.missing(block, page)
             and saved.blocks[block].page(page) != memory[page * PAGE:(page + 1) * PAGE]]
    check_equal(wrong, [], f"pages of {block} that differ")


def of_a_lost_source(case):
    scene = Scene(case, "--on-loss=poison,after=1")
    scene.vm.do(f"touch {BLOCK} 0 {HERE}")
    for page in range(HERE):
        scene.vm.saw(page * PAGE)
    scene.lose()
    scene.vm.do(f"touch {BLOCK} {LOST * PAGE} 2")
    scene.vm.event("lost", offset=(LOST + 1) * PAGE)
    wait_for("both to be given up", lambda: scene.blocks()[BLOCK]["lost"] == 2)
    saved, blocks = scene.saved(), scene.blocks()
    missing = saved.all_missing(BLOCK)
    check(not missing & set(range(HERE)), "pages that came are missing")
    check({LOST, LOST + 1} <= missing, "lost pages are not missing")
    check_equal(len(missing), blocks[BLOCK]["missing"] + 2, "pages that are missing")
    check_equal(len(saved.all_missing(ROM)), blocks[ROM]["missing"], f"pages of {ROM} that are missing")
    same_pages(saved, BLOCK, scene.memory())
    check(any(saved.blocks[BLOCK].stored(page) for page in range(HERE)), "nothing was saved")
    index = saved.index
    check_equal((index["session"]["state"], index["session"]["lost_pages"], index["complete"]),
                ("paused", 2, False), "the index")
    check(index["session"]["reason"] and index["machine"], "the index says of what")
    status = scene.service.status()["salvage"]
    check_equal((status["stage"], status["bytes_done"]), ("saved", status["bytes_total"]), "status")
    check(scene.service.status()["state"] == "paused", "nothing else has changed")


def digest(case, block):
    path = case.path("content")
    with open(path, "wb") as out:
        for page in range(block.pages):
            out.write(block.page(page))
    return subprocess.run([built("tests/lib/xxh3sum"), path], capture_output=True, text=True,
                          check=True).stdout.split()[0]


def check_complete(scene):
    """Everything is there, as the source had it."""
    wanted = scene.source.completed()["digests"]
    scene.vm.event("complete")
    saved = scene.saved()
    for name, block in saved.blocks.items():
        check_equal(saved.all_missing(name), set(), f"pages of {name} that are missing")
        check_equal(digest(scene.case, block), wanted[name], f"digest of {name}")
    check(saved.index["complete"], "the index says that it is complete")
    return saved


def of_everything(case):
    scene = Scene(case)
    check(len(check_complete(scene).device) > 0, "the device state is there")


def of_private_memory(case):
    check_complete(Scene(case, memory="private=on"))


def of_private_memory_in_part(case):
    """What is there, and what waits in the daemon to be handed over; who ended takes its part along."""
    scene = Scene(case, memory="private=on")
    scene.vm.do(f"touch {BLOCK} 0 {HERE}")
    words = [scene.vm.saw(page * PAGE) for page in range(HERE)]
    scene.lose()
    saved = scene.saved()
    found = [f"{int.from_bytes(saved.blocks[BLOCK].page(page)[:8], 'little'):016x}" for page in range(HERE)]
    check_equal(found, words, "words of pages that came")
    check_equal(len(saved.all_missing(BLOCK)), scene.blocks()[BLOCK]["missing"], "pages that are missing")
    scene.vm.child.kill()
    scene.service.wait_sharer("vm", "dead")
    again = Salvage(scene.salvage("again"))
    check(set(range(HERE)) <= again.all_missing(BLOCK), "pages of a process that has ended")
    check(all(again.blocks[BLOCK].page(page) == ZEROES for page in range(HERE)), "and nothing in their place")


def while_it_runs(case):
    scene = Scene(case, source=("--preempt",))
    scene.vm.do(f"touch {BLOCK} 0 {HERE}")
    scene.vm.saw((HERE - 1) * PAGE)
    saved = scene.saved()
    check_equal(saved.index["session"]["state"], "running", "state in the index")
    same_pages(saved, BLOCK, scene.memory())
    check_equal(digest(case, check_complete_again(scene).blocks[BLOCK]),
                scene.source.summary()["digests"][BLOCK], "digest behind it")


def check_complete_again(scene):
    scene.source.completed()
    scene.vm.event("complete")
    return Salvage(scene.salvage("again"))


def refused(case):
    service = Service(case)
    done = subprocess.run([built("postcopyctl"), "-r", service.run_dir, "salvage", case.path("none")],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    check_equal(done.returncode, 1, "exit status")
    check("nothing to save" in done.stderr, done.stderr)
    check(not os.path.exists(case.path("none")), "a folder is there")


def nothing_is_overwritten(case):
    scene = Scene(case)
    os.mkdir(case.path("mine"))
    check("is there already" in scene.salvage("mine", status=1), "why")
    check_equal(os.listdir(case.path("mine")), [], "what is in it")
    check("No such file" in scene.salvage("nowhere/saved", status=1), "why")


def nothing_is_left(case):
    """The disk is full in the middle."""
    scene = Scene(case)
    small = case.path("small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], check=True)
    case.defer(lambda: subprocess.run(["umount", small], check=True))
    scene.source.completed()
    scene.vm.event("complete")
    said = scene.salvage("small/saved", status=1)
    check("No space left" in said, said)
    check_equal(os.listdir(small), [], "what is left")
    check_equal(scene.service.status()["salvage"]["stage"], "failed", "stage")
    check_equal(Salvage(scene.salvage()).all_missing(BLOCK), set(), "missing, with room")


CASES = [
    ("F59 what a lost source left, and what it did not", of_a_lost_source),
    ("F59 a whole VM", of_everything),
    ("F59 private memory, whole", of_private_memory),
    ("F59 private memory in part, and of who has ended", of_private_memory_in_part),
    ("F59 while pages come", while_it_runs),
    ("F59 nothing to save", refused),
    ("F59 nothing is overwritten", nothing_is_overwritten),
    ("F59 nothing is left of what failed", nothing_is_left),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
