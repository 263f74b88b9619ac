#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyd itself: the commit rule, being killed, what it writes and listens on.  (A1, A7, A10, A11, F09, F54, F55)"""
import json
import os
import signal
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import qwire  # noqa: E402
from harness import Skip, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import D2S, S2D, Relay, free_tcp_uri  # noqa: E402
from service import BLOCK, MIB, PAGE, Service, missing_programs  # noqa: E402

SEALS = 0x1 | 0x2 | 0x4 | 0x8           # seal, shrink, grow, write
NOBODY = 65534
LATE = 3600000                          # ms: nothing is loaded unless the console says so


def ctl(service, *arguments):
    return subprocess.run([built("postcopyctl"), "-r", service.run_dir, *arguments], capture_output=True,
                          text=True, timeout=10, check=False)


def session(service, *options, to=None, **main_options):
    """A whole one, to the end."""
    vm = service.sharer("vm", "main", threads=2, **main_options)
    service.check_same(service.source(*options, to=to), sharers=[vm])
    return vm


# --- killed, before and after the commit ------------------------------------------------------------

def killed_before_package(case):
    """A11: the source resumes its VM, nothing is lost."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    vm.event("ready")
    relay = Relay(case, "unix:" + case.path("relay"), service.uri)
    hold = relay.hold(S2D, before=lambda event: event.kind == "DISCARD")
    source = service.source("--precopy", "half", "--commit-ping", to=relay.uri)
    relay.wait_held(hold)
    service.child.kill()
    relay.release(hold)
    source.ended("source-resumes")
    vm.event("disconnected")
    check(not vm.has("running"), "it was told to run")


def killed_loading(case):
    """With PING 0x42 in the package, before it was answered: the source resumes."""
    service = Service(case)
    vm = service.sharer("vm", "main", loaded_after=LATE)
    source = service.source("--commit-ping")
    vm.event("package")
    service.child.kill()
    source.ended("source-resumes")
    check(not vm.has("running"), "it was told to run")


def killed_after_commit(case, *options):
    """The source keeps its VM stopped: never two running ones."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    source = service.source("--no-background", "--linger", "60000", *options)
    vm.event("running")
    vm.do(f"touch {BLOCK} 0 4")
    vm.saw(3 * PAGE)
    service.child.kill()
    source.ended("postcopy-paused")
    vm.event("disconnected")


def killed_after_package(case):
    killed_after_commit(case)


def killed_after_pong(case):
    killed_after_commit(case, "--commit-ping")


# --- waiting for sharers, loading ---------------------------------------------------------------------

def expect_timeout(case):
    """F55: refused after the time, by the name of who is missing."""
    service = Service(case, "--expect-timeout", "1", expect=("vm", "backend"), stay=False)
    vm = service.sharer("vm", "main")
    source = service.source("--commit-ping")
    text = service.wait_blocker("sharer:backend")
    check("backend" in text, text)
    service.ended(1)
    check("backend" in service.log() and "expect-timeout" in service.log(), service.log())
    vm.event("failed")
    source.ended("source-resumes")


def load_timeout(case):
    service = Service(case, "--load-timeout", "1", stay=False)
    vm = service.sharer("vm", "main", loaded_after=LATE)
    source = service.source("--commit-ping")
    vm.event("package")
    service.ended(1)
    check("load-timeout" in service.log(), service.log())
    source.ended("source-resumes")


def load_fails_with_ping(case):
    """Before the commit: refused with the VMM's own words."""
    service = Service(case)
    vm = service.sharer("vm", "main", load_fail="no such device")
    source = service.source("--commit-ping")
    reason = service.wait_state("failed")["error"]["reason"]
    check("no such device" in reason, reason)
    vm.event("failed")
    source.ended("source-resumes")
    check(not vm.has("running"), "it was told to run")


def load_fails_without_ping(case):
    """The package was the commit: held, the connection kept, so that the memory stays somewhere."""
    service = Service(case)
    vm = service.sharer("vm", "main", load_fail="no such device")
    source = service.source("--no-background", "--linger", "60000")
    reason = service.wait_state("paused")["error"]["reason"]
    check("no such device" in reason, reason)
    vm.event("paused")
    time.sleep(0.1)
    source.child.check_running()
    check(not vm.has("running"), "it was told to run")


def loaded_before_running(case):
    service = Service(case)
    vm = service.sharer("vm", "main", loaded_after=LATE)
    source = service.source()
    vm.event("package")
    time.sleep(0.1)
    check(not vm.has("running"), "RUNNING before LOADED")
    check(not service.status()["running_told"], "it says that it told RUNNING")
    vm.do("load")
    vm.event("running")
    check(vm.event("loaded")["t_us"] <= vm.event("running")["t_us"], "RUNNING came before LOADED")
    service.check_same(source)


def running_after_pong(case):
    """A7: while the source has not taken PONG 0x42, it may resume its VM: ours must not run."""
    service = Service(case, expect=("vm", "other"))
    vm = service.sharer("vm", "main", loaded_after=LATE)
    other = service.sharer("other")
    relay = Relay(case, "unix:" + case.path("relay"), service.uri)
    source = service.patient_source("--commit-ping", to=relay.uri)
    vm.event("package")
    relay.pause()
    # the relay takes this one request off the socket, and nothing behind it
    other.do(f"touch {BLOCK} 0 1")
    wait_for("the request", lambda: service.status()["requests_in_flight"])
    time.sleep(0.4)
    vm.do("load")
    vm.event("loaded")
    time.sleep(0.4)
    check(not vm.has("running"), "RUNNING was told before PONG 0x42 had left")
    check(not service.status()["running_told"], "it says that it told RUNNING")
    relay.resume()
    vm.event("running")
    service.check_same(source)
    pongs = [e.a for e in qwire.ReturnPath().feed(relay.main().directions[D2S].bytes())
             if e.kind == "PONG"]
    check(0x42 in pongs, f"PONGs {pongs}")


# --- the package -------------------------------------------------------------------------------------------

def device_state(case):
    """A7: the file is ours alone, new, and what the main sharer got, sealed, is the same."""
    path = case.path("state")
    service = Service(case, "--device-state", path)
    vm = session(service, "--device-state", "70000")
    package = vm.event("package")
    mode = os.stat(path)
    check_equal(stat.S_IMODE(mode.st_mode), 0o600, "mode of the file")
    check_equal(mode.st_size, package["bytes"], "bytes of the file")
    check_equal(package["seals"] & SEALS, SEALS, "seals of the memfd")
    check(package["device_bytes"] >= 70000 and package["device_offset"] > 0, f"package {package}")
    hasher = built("tests/lib/xxh3sum")
    if hasher:
        said = subprocess.run([hasher, path], capture_output=True, text=True, check=True, timeout=10)
        check(package["xxh3_128"] in said.stdout, f"digest of the file: {said.stdout}")
    again = subprocess.run([built("postcopyd"), "--incoming", "unix:" + case.path("x"), "--run-dir",
                            case.path("other"), "--device-state", path], capture_output=True, text=True,
                           timeout=10, check=False)
    check_equal(again.returncode, 1, "exit status with a file that is there")
    check(path in again.stderr and "exists" in again.stderr, again.stderr)
    check_equal(os.stat(path).st_size, package["bytes"], "bytes of the file afterwards")
    os.symlink("/dev/null", case.path("link"))
    link = subprocess.run([*again.args[:-1], case.path("link")], capture_output=True, text=True, timeout=10,
                          check=False)
    check_equal(link.returncode, 1, "exit status with a symbolic link")


def wants(case):
    """F09: what is wanted ahead of need is asked for in long requests, and not twice."""
    service = Service(case)
    relay = Relay(case, "unix:" + case.path("relay"), service.uri)
    vm = service.sharer("vm", "main", want=f"{BLOCK},offset=0,length=1M,class=dma")
    source = service.patient_source(to=relay.uri)
    wait_for("all of it", lambda: sum(b["present"] for b in service.control("blocks")) >= MIB // PAGE)
    service.check_same(source, sharers=[vm])
    relay.wait_finished()
    requests = [e for e in qwire.ReturnPath().feed(relay.main().directions[D2S].bytes())
                if e.kind == "REQUEST"]
    check_equal(sum(e.c for e in requests), MIB, "bytes asked for")
    check(max(e.c for e in requests) > PAGE, "only single pages were asked for")


# --- sockets, options, signals -----------------------------------------------------------------------------

def modes(case):
    service = Service(case, "--register-group", "daemon")
    wanted = {"": 0o700, "register": 0o660, "control": 0o600}
    for name, mode in wanted.items():
        have = stat.S_IMODE(os.stat(os.path.join(service.run_dir, name)).st_mode)
        check_equal(oct(have), oct(mode), f"mode of run-dir/{name}")
    service = Service(case)
    have = stat.S_IMODE(os.stat(service.register).st_mode)
    check_equal(oct(have), oct(0o600), "mode of register without a group")


def control_is_private(case):
    """F54: even where the file system would let another user in, the daemon does not."""
    if os.geteuid() != 0:
        raise Skip("needs root, to be somebody else")
    service = Service(case)
    path = os.path.join(service.run_dir, "control")
    for name in (case.dir, service.run_dir, path):
        os.chmod(name, 0o777)
    code = ("import os, socket; os.setgroups([]); os.setgid(%d); os.setuid(%d); "
            "s = socket.socket(socket.AF_UNIX); s.connect('%s'); s.settimeout(5); "
            "print(s.recv(4096).decode(), repr(s.recv(4096)))" % (NOBODY, NOBODY, path))
    said = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, timeout=10,
                          check=False)
    check("AccessDenied" in said.stdout and "b''" in said.stdout, said.stdout + said.stderr)
    check_equal(service.status()["state"], "idle", "state")


def quitting(case):
    """Refused while a committed VM depends on it; by force it ends."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    service.source("--no-background", "--linger", "60000")
    vm.event("running")
    refused = ctl(service, "quit")
    check_equal(refused.returncode, 1, "exit status of quit")
    check("committed" in refused.stderr, refused.stderr)
    service.child.check_running()
    check_equal(ctl(service, "quit", "--force").returncode, 0, "exit status of quit --force")
    service.child.wait(10)


def terminated(case):
    """SIGTERM: at once when idle; once warned and then obeyed when committed."""
    service = Service(case)
    service.child.kill(signal.SIGTERM)
    service.ended(0)
    service = Service(case)
    vm = service.sharer("vm", "main")
    service.source("--no-background", "--linger", "60000")
    vm.event("running")
    service.child.kill(signal.SIGTERM)
    wait_for("the warning", lambda: "not stopping" in service.log())
    time.sleep(0.1)
    service.child.check_running()
    service.child.kill(signal.SIGTERM)
    service.ended(1)


def leaves_by_itself(case):
    """Without --stay: exit 0 once all is done, its sockets removed."""
    service = Service(case, stay=False)
    session(service, exit_after_complete=True)
    service.ended(0)
    check(not os.path.exists(service.register), "the register socket is left behind")


def addresses(case):
    for uri in (free_tcp_uri("127.0.0.1"), free_tcp_uri("::1"), "tcp:127.0.0.1:0", "tcp::0"):
        service = Service(case, incoming=uri)
        target = service.uri
        if uri == "tcp::0":
            target = "tcp:127.0.0.1:" + service.uri.rsplit(":", 1)[1]
        session(service, to=target)
        check(service.status()["source"].split()[0] in ("127.0.0.1", "::1", "::ffff:127.0.0.1"),
              service.status()["source"])


def config_file(case):
    """--config FILE; the command line wins."""
    path = case.path("conf")
    with open(path, "w", encoding="ascii") as conf:
        conf.write("[postcopyd]\nspin-us=30\nexpect=vm;second\nmax-sharers=2\n")
    service = Service(case, "--config", path, expect=())
    service.sharer("vm", "main", threads=1).event("ready")
    source = service.source("--commit-ping")
    check("second" in service.wait_blocker("sharer:second"), "the file's --expect does not count")
    second = service.sharer("second", threads=1)
    service.check_same(source, sharers=[second])
    check("max-sharers" in service.sharer("third").event("error")["text"], "the file's max-sharers")
    with open(path, "a", encoding="ascii") as conf:
        conf.write("nonsense=1\n")
    bad = subprocess.run([built("postcopyd"), "--config", path, "--incoming", "unix:x", "--run-dir",
                          case.path("bad")], capture_output=True, text=True, timeout=10, check=False)
    check_equal(bad.returncode, 2, "exit status with an unknown key")
    check("nonsense" in bad.stderr, bad.stderr)


def spinning(case):
    """--spin-us: the same result; and no spinning once all is over."""
    service = Service(case, "--spin-us", "200", expect=("vm", "second"))
    vm = service.sharer("vm", "main", threads=2)
    second = service.sharer("second", threads=2)
    service.check_same(service.source("--rate", "40M"), sharers=[vm, second])
    before = service.cpu()
    time.sleep(0.5)
    check(service.cpu() - before < 0.25, f"{service.cpu() - before:.2f} s of CPU in 0.5 s after the end")


def second_connection(case):
    """A second source while one runs is refused, and disturbs nothing."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    source = service.patient_source("--preempt")
    vm.event("running")
    other = service.source(blocks=[f"{BLOCK},size=1M"])
    summary = other.summary()
    check(summary["outcome"] != "completed", f"the second source says {summary['outcome']}")
    wait_for("a line in the log", lambda: "running already" in service.log())
    service.check_same(source, sharers=[vm])


def events(case):
    """`postcopyctl events`: the states of a session, in their order."""
    service = Service(case)
    watcher = case.spawn("events", [built("postcopyctl"), "-r", service.run_dir, "--json", "events"])
    time.sleep(0.2)
    session(service, "--precopy", "half", "--commit-ping")
    wait_for("the last event", lambda: any("complete" in line for line in watcher.lines()))
    told = [json.loads(line) for line in watcher.lines()]
    names = [name for event in told for name in ("advised", "discarding", "listening", "loading", "running",
                                                 "complete") if name in json.dumps(event)]
    order = ["advised", "discarding", "listening", "loading", "running", "complete"]
    check(names == sorted(names, key=order.index) and names[-1] == "complete", f"events {names}")


CASES = [
    ("A11 killed before the package: the source resumes", killed_before_package),
    ("A7 A11 killed while loading, PING 0x42: the source resumes", killed_loading),
    ("A7 A11 killed after the package: never two running VMs", killed_after_package),
    ("A7 A11 killed after PONG 0x42: never two running VMs", killed_after_pong),
    ("F55 --expect-timeout refuses by name", expect_timeout),
    ("A7 --load-timeout refuses before the commit", load_timeout),
    ("A7 a load that fails before the commit: refused", load_fails_with_ping),
    ("A7 a load that fails after it: held", load_fails_without_ping),
    ("A7 RUNNING comes after LOADED", loaded_before_running),
    ("A7 RUNNING waits until PONG 0x42 has left", running_after_pong),
    ("A7 the device state: file and sealed memfd", device_state),
    ("F09 WANT: ahead of need, in long requests", wants),
    ("F54 modes of the sockets", modes),
    ("F54 control refuses other users", control_is_private),
    ("F54 quit is refused while a VM depends on it", quitting),
    ("A11 SIGTERM, once and twice", terminated),
    ("A10 it ends by itself when all is done", leaves_by_itself),
    ("A1 IPv4, IPv6, both, and a port of the kernel's choice", addresses),
    ("--config FILE", config_file),
    ("--spin-us", spinning),
    ("A1 a second source is refused while one is served", second_connection),
    ("F54 events in their order", events),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
