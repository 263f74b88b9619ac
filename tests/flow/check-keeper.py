#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon with --keeper whose worker dies, at each moment of a session, or is replaced.  (F59, F61)"""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import built, check, check_equal, main, signals_end, skip_all, wait_for  # noqa: E402
from service import MIB, Service, missing_programs  # noqa: E402

LATE = 3600000                          # ms: nothing is loaded unless the console says so
DEATHS = (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT)


def worker(service):
    """The pid of who serves; 0 while there is none."""
    with open(f"/proc/{service.pid}/task/{service.pid}/children", encoding="ascii") as children:
        return int((children.read().split() or ["0"])[0])


def begin(case, *options, expect=("vm",), **more):
    return Service(case, "--keeper", *options, expect=expect, **more)


def kill(service, sig):
    """The worker dies, and another one answers."""
    before = service.status()["worker"]
    os.kill(before["pid"], sig)
    wait_for("the next worker", lambda: worker(service) not in (0, before["pid"]))
    now = service.status()["worker"]
    check(now["generation"] > before["generation"], "it is not the next one")
    return now


def ctl(service, *arguments):
    return subprocess.run([built("postcopyctl"), "-r", service.run_dir, *arguments], capture_output=True,
                          text=True, timeout=60, check=False)


# --- where nothing is to be gone on with ----------------------------------------------------------------

def idle(case):
    """Nobody was there: whoever comes afterwards notices nothing, and who asks is told."""
    service = begin(case, stay=False)
    for sig in DEATHS:
        now = kill(service, sig)
        check_equal(now["last"], f"signal {int(sig)}", "how the last one ended")
    check_equal((now["keeper"], now["generation"], now["restarts"]), ("keeper", 3, 3), "the worker")
    vm = service.sharer("vm", "main", threads=2, exit_after_complete=True)
    service.check_same(service.source("--preempt"), sharers=[vm])
    service.ended(0)
    check(not os.path.exists(service.register), "its socket stands there still")


def before_the_commit(case):
    """The source takes its VM back, and everybody is told that it failed."""
    service = begin(case)
    vm = service.sharer("vm", "main", loaded_after=LATE)
    source = service.source("--commit-ping")
    vm.event("package")
    kill(service, case.random.choice(DEATHS))
    source.ended("source-resumes")
    vm.event("failed")
    check("nothing is lost" in service.wait_state("failed")["error"]["reason"], "the reason does not say so")
    check(not vm.has("running"), "it was told to run")


def complete(case):
    """All memory is here and stays what it is; sharers hear the end once."""
    service = begin(case, expect=("vm", "other"))
    vm = service.sharer("vm", "main", threads=4)
    other = service.sharer("other", threads=4)
    service.check_same(service.source("--preempt"))
    for _ in range(3):
        kill(service, case.random.choice(DEATHS))
        check_equal(service.status()["state"], "complete", "state")
    check_equal([len(s.all("complete")) for s in (vm, other)], [1, 1], "times they heard of the end")


# --- while pages are owed -------------------------------------------------------------------------------------

def one_session(case, deaths):
    """Two processes of eight threads each fault and check what they see; as many workers die meanwhile as can."""
    service = begin(case, expect=("vm", "other"), size=64 * MIB)
    sharers = [service.sharer("vm", "main", threads=8), service.sharer("other", threads=8)]
    source = service.source("--reconnect=120", *case.random.choice(([], ["--preempt"])))
    sharers[0].event("running")
    died = 0
    while died < deaths and service.status()["state"] != "complete":
        time.sleep(case.random.random() * 0.1)
        kill(service, case.random.choice(DEATHS))
        died += 1
    service.check_same(source, sharers=sharers)
    for sharer in sharers:
        check(not sharer.has("disconnected") and len(sharer.all("complete")) == 1, f"{sharer.name} noticed")
        sharer.child.stop()
    service.child.kill()
    return died


def random_deaths(case):
    """No fault is lost, no page asked for twice or placed twice, nothing wrong is read."""
    wanted, died = 100 if os.environ.get("POSTCOPY_TESTS_LONG") == "1" else 8, 0
    while died < wanted:
        died += one_session(case, min(3, wanted - died))
    case.note(f"{died} workers died")


# --- ends ---------------------------------------------------------------------------------------------------

def keeper_killed(case):
    """Everything ends, and nobody is left."""
    service = begin(case)
    vm = service.sharer("vm", "main")
    vm.event("ready")
    pid = worker(service)
    service.child.kill(signal.SIGKILL)
    wait_for("the worker to end", lambda: not os.path.exists(f"/proc/{pid}"))
    vm.event("disconnected")


def stopped(case):
    """A signal to the keeper is one to the worker; the status is the worker's."""
    service = begin(case)
    vm = service.sharer("vm", "main", loaded_after=LATE)
    source = service.source("--commit-ping")
    vm.event("package")
    service.child.kill(signal.SIGTERM)
    source.ended("source-resumes")
    service.ended(1)
    check(not os.path.exists(service.register), "its socket stands there still")


# --- in the middle --------------------------------------------------------------------------------------------

def upgraded(case):
    """Another program takes over while pages are owed; one that cannot is refused."""
    service = begin(case)
    vm = service.sharer("vm", "main")
    service.patient_source("--reconnect=60")
    vm.event("running")
    refused = ctl(service, "upgrade", built("postcopyctl"))
    check(refused.returncode == 1 and "is it postcopyd" in refused.stderr, f"not refused: {refused.stderr}")
    before = service.status()["worker"]
    check("is it postcopyd" in before["upgrade"], "the status does not say why")
    done = ctl(service, "upgrade", built("postcopyd"))
    check_equal((done.returncode, done.stderr), (0, ""), "upgrade")
    now = service.status()["worker"]
    check_equal((now["last"], now["restarts"], now["upgrade"]), ("upgrade", 0, None), "the worker")
    check_equal(service.of("vm")["state"], "active", "the main sharer")


def upgrade_without_a_keeper(case):
    service = Service(case)
    refused = ctl(service, "upgrade", built("postcopyd"))
    check(refused.returncode == 1 and "--keeper" in refused.stderr, f"not refused: {refused.stderr}")


def with_devices(case):
    """What could not be taken over is refused at the start."""
    done = subprocess.run([built("postcopyd"), "--incoming", "tcp:127.0.0.1:0", "--run-dir", case.path("r"), "--keeper",
                           "--vfio", "id=a,vfio-user=/nowhere"], capture_output=True, text=True, timeout=60, check=False)
    check(done.returncode == 2 and "--keeper and --vfio exclude each other" in done.stderr, done.stderr)

CASES = (
    ("F61 a worker that dies while nobody is there", idle),
    ("F61 dies before the commit: the source has its VM", before_the_commit),
    ("F61 dies when everything is here", complete),
    ("F59 F61 workers die at random moments of postcopy", random_deaths),
    ("the keeper is killed: nobody is left", keeper_killed),
    ("a signal to the keeper", stopped),
    ("another program takes over in the middle", upgraded),
    ("nobody to start another program", upgrade_without_a_keeper),
    ("devices that could not be handed on", with_devices),
)

if __name__ == "__main__":
    signals_end()
    if missing_programs():
        skip_all("not built: " + ", ".join(missing_programs()))
    main(CASES)
