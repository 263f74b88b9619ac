#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""--source-qmp: what the monitor of a source is told while the session is paused, and when it is not.

The monitor is one with a script (fake_qemu.py); tests/interop has a real one.
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import TOP_SRCDIR, check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import Relay  # noqa: E402
from service import Service, missing_programs  # noqa: E402

STOPPED, RUNS = {"running": False, "status": "finish-migrate"}, {"running": True, "status": "running"}


class Scene:
    """A session that lost its source, and a monitor that answers what it was told to."""

    def __init__(self, case, *options):
        self.case = case
        self.monitor = case.path("monitor")
        self.service = Service(case, "--source-qmp", self.monitor, *options)
        self.vm = self.service.sharer("vm", "main")
        self.relay = Relay(case, "unix:" + case.path("relay"), self.service.uri)
        self.source = self.service.patient_source(to=self.relay.uri)
        self.vm.event("running")
        self.service.wait_state("running")
        self.qemu = None

    def answer(self, **answers):
        script = {name.replace("_", "-"): value for name, value in answers.items()}
        self.qemu = self.case.spawn("monitor", [sys.executable, os.path.join(TOP_SRCDIR, "tests/lib/fake_qemu.py"),
                                                self.monitor, json.dumps(script)], stdin=subprocess.PIPE)
        return self

    def lose(self):
        self.relay.cut()
        self.service.wait_state("paused")
        return self

    def asked(self, command):
        """What the monitor was asked of that, with its arguments."""
        return [line for line in self.qemu.lines() if line.split()[0] == command]

    def said(self, word):
        return [text for text in [self.service.status()["source_qmp"]["text"]] if word in text]

    def wait_said(self, word):
        return wait_for(f"'{word}' in status", lambda: self.said(word))[0]

    def wait_asked(self, command, count=1):
        wait_for(f"{count} times {command}", lambda: len(self.asked(command)) >= count)
        return self.asked(command)


def resumes(case):
    """A source that is paused is told once where to come; not before it is lost."""
    scene = Scene(case).answer(query_status=STOPPED, query_migrate={"status": "postcopy-paused"})
    status = scene.service.status()["source_qmp"]
    check_equal((status["socket"], status["step"], status["tries"]), (scene.monitor, "off", 0), "while it runs")
    check_equal(scene.qemu.lines(), [], "what the monitor heard")
    scene.lose()
    check_equal(scene.wait_asked("migrate")[0], f"migrate {scene.service.uri} True", "what it was told")
    scene.wait_said("was told to resume")
    check_equal(scene.asked("migrate-pause"), [], "pauses")
    check(scene.service.status()["source_qmp"]["tries"] >= 1, "no try was counted")
    check("its monitor" in scene.service.text("status"), "postcopyctl does not say it")


def resumes_again(case):
    """What does not help is said again, ever more seldom."""
    scene = Scene(case).lose().answer(query_status=STOPPED, query_migrate={"status": "postcopy-paused"},
                                      migrate={"error": "cannot connect"})
    scene.wait_asked("migrate", 4)
    check("cannot connect" in scene.wait_said("does not resume"), "the source's own words are missing")


def unaware(case):
    """One that has not noticed is told so, at the second look; then it resumes."""
    active, paused = {"status": "postcopy-active"}, {"status": "postcopy-paused"}
    scene = Scene(case).answer(query_status=STOPPED, query_migrate={"each": [active, active, active, paused]}).lose()
    scene.wait_asked("migrate")
    wanted = ["query-status", "query-migrate"] * 2 + ["migrate-pause"] + ["query-status", "query-migrate"] * 2
    heard = [line.split()[0] for line in scene.qemu.lines() if line.split()[0] != "qmp_capabilities"]
    check_equal(heard[:len(wanted) + 1], wanted + ["migrate"], "what the monitor heard")


def not_yet(case):
    """One that is on its way, or has nothing to resume, is looked at, and not told anything."""
    states = ["postcopy-recover", "completed", "failed"]
    scene = Scene(case).answer(query_status=STOPPED, query_migrate={"each": [{"status": s} for s in states]}).lose()
    scene.wait_said("the migration at the source is failed")
    scene.wait_asked("query-migrate", 4)
    check_equal(scene.asked("migrate") + scene.asked("migrate-pause"), [], "what it was told")


def runs_there(case):
    """A source whose VM runs is never told to resume."""
    scene = Scene(case).answer(query_status=RUNS, query_migrate={"status": "postcopy-paused"}).lose()
    scene.wait_said("the VM runs at the source")
    scene.wait_asked("query-status", 4)
    check_equal(scene.asked("migrate") + scene.asked("migrate-pause"), [], "what it was told")
    check_equal(scene.service.status()["source_qmp"]["step"], "runs", "step")


def comes_and_goes(case):
    """A monitor that is not there yet, and one that dies, cost nothing but time."""
    scene = Scene(case).lose()
    scene.wait_said("connecting to the source's monitor")
    scene.answer(query_status=STOPPED, query_migrate={"status": "setup"})
    scene.wait_said("the migration at the source is setup")
    scene.qemu.kill()
    scene.wait_said("no monitor of the source")
    os.unlink(scene.monitor)
    scene.answer(query_status=STOPPED, query_migrate={"status": "postcopy-paused"})
    scene.wait_asked("migrate")


CASES = (
    ("F59 a source that waits is told to resume", resumes),
    ("F59 what is refused is said again", resumes_again),
    ("F59 a source that has not noticed is told", unaware),
    ("F59 a source in another state is left alone", not_yet),
    ("F59 a source whose VM runs is left alone", runs_there),
    ("F59 the source's monitor comes and goes", comes_and_goes),
)


if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
