#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyctl as people and scripts meet it, against a daemon that is only a control socket: exit statuses, what goes to
stdout, how watch ends, and what it does to a terminal.  (F54, F55, F64)
"""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from fake_control import NS, FakeControl, Session  # noqa: E402
from harness import check, check_equal  # noqa: E402

CTL = harness.built("postcopyctl")


def daemon(case, session=None, **kwargs):
    fake = FakeControl(case.path("control"), session or Session(), **kwargs)
    case.defer(fake.close)
    return fake


def ctl(case, *args, run_dir=True):
    """(status, stdout, stderr)"""
    where = ["-r", case.dir] if run_dir else []
    done = subprocess.run([CTL, *where, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, text=True)
    return done.returncode, done.stdout, done.stderr


def expect(got, status, out="", err=""):
    check_equal(got[0], status, f"status with stderr {got[2]!r}")
    check(re.search(out, got[1], re.S) if out else got[1] == "", f"stdout {got[1]!r} lacks {out!r}")
    check(re.search(err, got[2], re.S) if err else got[2] == "", f"stderr {got[2]!r} lacks {err!r}")


# --- one question, one answer ---


def commands(case):
    daemon(case)
    expect(ctl(case), 0, r"^state +running for 12\.\d s\n.*owed +258048 of 262144 pages left")
    expect(ctl(case, "status"), 0, r"^state +running")
    expect(ctl(case, "sharers"), 0, r"1\.1  vmm.*\n2\.1  net.*its userfaultfd is gone\n$")
    expect(ctl(case, "blocks"), 0, r"\npc\.ram +shared +2 +1 GiB +4 KiB +262144")
    expect(ctl(case, "stats"), 0, r"FAULTS.*LATENCY.*placement.*LANE.*urgent.*requests sent +900\n")
    expect(ctl(case, "blockers"), 0, r"^nothing blocks\n$")
    expect(ctl(case, "quit"), 0)


def commands_json(case):
    fake = daemon(case)
    for name in ("status", "sharers", "blocks", "stats", "blockers"):
        status, out, err = ctl(case, name, "--json")
        check_equal((status, err, out.count("\n")), (0, "", 1), name)
        value = json.loads(out)
        wanted = fake.session.blockers if name == "blockers" else getattr(fake.session, name)()
        check_equal(type(value), type(wanted), name)
        if isinstance(value, dict):
            check_equal(list(value), list(wanted), f"members of {name}")
    check_equal(json.loads(ctl(case, "-j")[1])["machine"], "pc-i440fx-7.2", "the default command")


def handover(case):
    fake = daemon(case)
    expect(ctl(case, "handover"), 1, err="nothing is handed over")
    fake.session.handover = {
        "now_ns": 100 * NS, "phase": "failed", "since_ns": 99 * NS, "waits_for": None,
        "deadline_ns": None, "deadline_reason": None, "error": "block x\033[31m is missing",
        "advice": "give it one", "qemu": {"attempt": 1, "pid": 5, "version": "10.0.2",
                                          "status": "inmigrate"},
        "blocks": [], "timeline": [{"phase": "wait-qmp", "at_ns": 98 * NS},
                                   {"phase": "failed", "at_ns": 99 * NS}]}
    expect(ctl(case, "handover"), 0,
           r"^phase +failed for 1\.0 s\nerror +block x\?\[31m is missing\nwhat to do +give it one\n"
           r"QEMU +10\.0\.2, process 5, inmigrate\n.*wait-qmp +- +1\.0 s\nfailed +1\.0 s +1\.0 s\n$")
    check_equal(json.loads(ctl(case, "handover", "--json")[1]), fake.session.handover, "as it came")


def vhost_user(case):
    fake = daemon(case)
    fake.session.vhosts = {"now_ns": 100 * NS, "devices": [
        {"name": "disk", "dialect": "universal", "state": "connected", "stage": "served", "since_ns": 98 * NS, "pid": 7,
         "waiting": 3, "quarantines": 1, "reason": "hung\033[31m up"},
        {"name": "net", "dialect": "gated", "state": "listening", "since_ns": 99 * NS, "reason": None}]}
    expect(ctl(case, "vhost-user"), 0, r"^NAME +DIALECT +STATE +FOR +PID +WAITING +QUARANTINES +REASON\n"
           r"disk +universal +served +2\.0 s +7 +3 +1 +hung\?\[31m up\nnet +gated +listening +1\.0 s +0 +0 +0 *\n$")
    check_equal(json.loads(ctl(case, "vhost-user", "list", "-j")[1]), fake.session.vhosts["devices"], "as it came")
    expect(ctl(case, "vhost-user", "add", "name=a,front=/f,back=/b"), 0, "")
    expect(ctl(case, "vhost-user", "remove", "a"), 0, "")
    expect(ctl(case, "vhost-user", "remove", "a", "--force"), 0, "")
    check_equal([r.get("arguments") for r in fake.requests[-3:]],
                [{"device": "name=a,front=/f,back=/b"}, {"name": "a"}, {"name": "a", "force": True}], "requests")
    for words in (("add",), ("remove",), ("list", "a"), ("add", "a", "b"), ("nonsense",), ("add", "a", "--force")):
        expect(ctl(case, "vhost-user", *words), 2, err="vhost-user")


def names_cannot_command_the_terminal(case):
    daemon(case)
    for name in ("sharers", "blocks"):
        out = ctl(case, name)[1]
        check("\033" not in out and "\007" not in out, f"{name}: {out!r}")
        check("?" in out, f"{name} shows that something was there")


def blockers_show_in_status(case):
    fake = daemon(case)
    fake.session.blockers = [{"name": "sharer:net", "step": "listening", "text": "no hello yet", "since_ns": 95 * NS}]
    for name in ("status", "blockers"):
        expect(ctl(case, name), 0, r"sharer:net  listening +\d+\.\d s  no hello yet\n$")


def quit_and_force(case):
    fake = daemon(case, refuse_quit="the VM runs here and owes 7 pages")
    expect(ctl(case, "quit"), 1, "", r"^postcopyctl: the VM runs here and owes 7 pages\n$")
    expect(ctl(case, "quit", "--force"), 0)
    check_equal([r.get("arguments") for r in fake.requests], [None, {"force": True}], "requests")


def usage(case):
    rows = [(["-r", "x", "frobnicate"], "no command 'frobnicate'"), (["status"], "which daemon.*-r DIR"),
            (["-r", "x", "-s", "y"], "exclude each other"), (["-r", "x", "status", "--force"], "--force goes with quit"),
            (["-r", "x", "--interval", "1"], "--interval goes with watch"),
            (["-r", "x", "watch", "-i", "0"], "between 0.05 and 3600"),
            (["-r", "x", "watch", "-i", "nan"], "between 0.05 and 3600"),
            (["-r", "x", "watch", "-i", "soon"], "soon"), (["-r", "x", "status", "again"], "unexpected argument 'again'"),
            (["--frobnicate"], "--frobnicate")]
    for args, err in rows:
        expect(ctl(case, *args, run_dir=False), 2, "", err)


def help_and_version(case):
    expect(ctl(case, "--help", run_dir=False), 0, "Usage:.*watch.*blockers.*Exit status: 0 done, 1 failed, 2 wrong usage")
    expect(ctl(case, "--version", run_dir=False), 0, r"^postcopyctl \d+\.\d+\.\d+ \+USERFAULTFD")


# --- daemons that are not there, or not right ---


def no_daemon(case):
    expect(ctl(case), 1, "", rf"no postcopyd at {case.dir}/control: there is no such socket; start one with "
                             rf"'postcopyd .*--run-dir {case.dir}'")


def dead_daemon(case):
    fake = daemon(case)
    os.rename(case.path("control"), case.path("kept"))
    fake.close()
    os.rename(case.path("kept"), case.path("control"))
    expect(ctl(case), 1, "", "it has ended and left its socket behind; start one with")


def turned_away(case):
    daemon(case, greeting={"error": {"class": "Busy", "desc": "too many clients are connected"}})
    expect(ctl(case), 1, "", "control: too many clients are connected")


def not_a_postcopyd(case):
    daemon(case, greeting={"QMP": {"version": {}}})
    expect(ctl(case), 1, "", "is not the control socket of a postcopyd")


def other_socket(case):
    fake = daemon(case)
    os.rename(fake.path, case.path("elsewhere"))
    expect(ctl(case, "-s", case.path("elsewhere"), run_dir=False), 0, "^state")


def path_too_long(case):
    expect(ctl(case, "-s", "/tmp/" + "x" * 120, run_dir=False), 1, "", "too long for a socket")


# --- watch without a terminal ---


def watch_lines_until_complete(case):
    daemon(case, Session(pages=1000, step=250))
    got = ctl(case, "watch", "-i", "0.05")
    expect(got, 0, r"^running.*\ncomplete for ")
    lines = got[1].splitlines()
    check_equal(len(lines), 4, "a line per round")
    check(re.search(r"owed 750 of 1000.*faults 3000.*latency p50 11\.0 us p90 12\.0 us p99 13\.0 us max 14\.0 us",
                    lines[0]), lines[0])
    check("main 4.1 MB/s" in lines[1] and "ETA" in lines[1], lines[1])
    check("\033" not in got[1], "no control sequences without a terminal")


def watch_failed(case):
    session = Session(pages=1000, step=500)
    session.end = "failed"
    daemon(case, session)
    expect(ctl(case, "watch", "-i", "0.05"), 1, r"failed for .*the source sent rubbish\n$")


def watch_json(case):
    daemon(case, Session(pages=1000, step=500))
    status, out, err = ctl(case, "watch", "--json", "-i", "0.05")
    check_equal((status, err), (0, ""), "end")
    rounds = [json.loads(line) for line in out.splitlines()]
    check_equal([r["status"]["state"] for r in rounds], ["running", "complete"], "states")
    check_equal(list(rounds[0]), ["status", "sharers", "blocks", "stats", "blockers"], "parts")


def watch_loses_the_daemon(case):
    daemon(case, Session(pages=1000, step=250), vanish_at=500)
    expect(ctl(case, "watch", "-i", "0.05"), 1, "^running", "has ended\n$")


def watch_hears_of_the_end_by_event(case):
    """The daemon completes and exits between two views."""
    daemon(case, Session(pages=1000, step=250), vanish_at=500, final_event=("complete", "all pages are here"))
    expect(ctl(case, "watch", "-i", "0.05"), 0, "^running")


def events_of(case, *args):
    fake = daemon(case)
    child = case.spawn("events", [CTL, "-r", case.dir, "events", *args])
    harness.wait_for("the request for events", lambda: fake.requests)
    fake.event("running", "the VM runs here")
    fake.event("complete", "all pages are here")
    harness.wait_for("two events", lambda: len(child.lines()) == 2)
    fake.close()
    check_equal(child.wait(), 0, "status when the daemon ends")
    return child.lines()


def events(case):
    lines = events_of(case)
    check(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.250 running: the VM runs here", lines[0]), lines[0])


def events_json(case):
    check_equal([json.loads(line)["data"]["state"] for line in events_of(case, "--json")], ["running", "complete"],
                "states")


# --- watch on a terminal ---


class Terminal:
    """watch under a pseudo terminal of 30 rows and 100 columns."""

    def __init__(self, case, *args, term="xterm"):
        self.master, slave = pty.openpty()
        case.defer(self.close)
        self.resize(30, 100)
        self.slave = slave
        self.modes = termios.tcgetattr(slave)

        def own_session():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.proc = subprocess.Popen([CTL, "-r", case.dir, "watch", *args], stdin=slave, stdout=slave,
                                     stderr=slave, preexec_fn=own_session, env=dict(os.environ, TERM=term))
        self.out = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def close(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()
        os.close(self.slave)
        os.close(self.master)

    def pump(self):
        while select.select([self.master], [], [], 0)[0]:
            self.out += os.read(self.master, 65536).decode(errors="replace")
        return self.out

    def wait_for(self, what, pattern, since=0):
        harness.wait_for(what, lambda: re.search(pattern, self.pump()[since:], re.S))

    def end(self):
        harness.wait_for("its end", lambda: (self.pump(), self.proc.poll() is not None)[1])
        self.pump()
        return self.proc.returncode

    def frames(self):
        return self.out.split("\033[H")[1:]

    def check_restored(self):
        check(self.out.startswith("\033[?1049h\033[?25l"), "the second screen is taken, the cursor hidden")
        check(self.out.count("\033[?25h\033[?1049l") == 1, "both are undone, once")
        check_equal(termios.tcgetattr(self.slave), self.modes, "terminal modes")


def terminal_until_complete(case):
    daemon(case, Session(pages=1000, step=250))
    t = Terminal(case, "-i", "0.05")
    check_equal(t.end(), 0, "status")
    t.check_restored()
    check(len(t.frames()) >= 4, "a frame per round")
    last = t.out[t.out.index("\033[?1049l"):]
    check(re.search(r"complete for .*pc\.ram +\[#+\] 100\.0%", last, re.S), "the last page stays on the first screen")
    first = t.frames()[0]
    check(re.search(r"pc\.ram +\[#+\++\.+\] +25\.0% +250 +750 +4 KiB", first), first)
    check(re.search(r"vmm +total +1000 +10\.0 us +11\.0 us", first), first)
    check("owned?" in first and "\007" not in t.out, "names cannot command the terminal")


def terminal_stopped_by(case, stop):
    daemon(case)
    t = Terminal(case)
    t.wait_for("the first frame", "pc\\.ram")
    check(not termios.tcgetattr(t.slave)[3] & termios.ECHO, "keys do not echo")
    stop(t)
    check_equal(t.end(), 0, "status")
    t.check_restored()


def terminal_interrupted(case):
    terminal_stopped_by(case, lambda t: os.write(t.master, b"\x03"))


def terminal_terminated(case):
    terminal_stopped_by(case, lambda t: t.proc.send_signal(signal.SIGTERM))


def terminal_q(case):
    terminal_stopped_by(case, lambda t: os.write(t.master, b"xq"))


def terminal_loses_the_daemon(case):
    daemon(case, Session(pages=1000, step=250), vanish_at=500)
    t = Terminal(case, "-i", "0.05")
    check_equal(t.end(), 1, "status")
    t.check_restored()
    check(re.search("has ended\r\n$", t.out), "the reason stands on the first screen")


def widths(frame):
    return [len(re.sub(r"\033\[[?0-9;]*[A-Za-z]", "", line.strip("\r"))) for line in frame.split("\n")]


def terminal_follows_the_size(case):
    fake = daemon(case)
    t = Terminal(case, "-i", "3600")
    t.wait_for("the first frame", r"pc\.ram.*\033\[J")
    check(max(widths(t.frames()[0])) <= 100, "fits 100 columns")
    check(max(widths(t.frames()[0])) > 60, "uses them")
    for rows, columns in ((10, 40), (5, 20), (1, 1), (60, 200)):
        since = len(t.out)
        t.resize(rows, columns)
        t.wait_for("a frame of the new size", r"\033\[H.*\033\[J", since)
        frame = t.frames()[-1]
        check(len(widths(frame)) <= rows, f"{len(widths(frame))} lines on {rows} rows")
        check(max(widths(frame)) <= columns, f"{max(widths(frame))} on {columns} columns")
    check_equal(sum(r["execute"] == "status" for r in fake.requests), 1, "the daemon was not asked again")


def terminal_that_is_dumb(case):
    daemon(case, Session(pages=1000, step=500))
    t = Terminal(case, "-i", "0.05", term="dumb")
    check_equal(t.end(), 0, "status")
    check("\033" not in t.out, "lines, no control sequences")


def terminal_rate(case):
    """Without --interval a terminal is redrawn 2 to 5 times a second; counted over a second, not timed."""
    fake = daemon(case)
    t = Terminal(case)
    t.wait_for("the first frame", "pc\\.ram")
    start, before = time.monotonic(), sum(r["execute"] == "status" for r in fake.requests)
    time.sleep(2)
    rounds = sum(r["execute"] == "status" for r in fake.requests) - before
    seconds = time.monotonic() - start
    check(rounds <= 5 * seconds + 1, f"{rounds} rounds in {seconds:.1f} s")
    check(rounds >= 1, "it lives")


CASES = [
    commands, commands_json, handover, vhost_user, names_cannot_command_the_terminal, blockers_show_in_status,
    quit_and_force, usage,
    help_and_version, no_daemon, dead_daemon, turned_away, not_a_postcopyd, other_socket, path_too_long,
    watch_lines_until_complete, watch_failed, watch_json, watch_loses_the_daemon, watch_hears_of_the_end_by_event,
    events, events_json, terminal_until_complete, terminal_interrupted, terminal_terminated, terminal_q,
    terminal_loses_the_daemon, terminal_follows_the_size, terminal_that_is_dumb, terminal_rate,
]

if __name__ == "__main__":
    if not CTL:
        harness.skip_all("postcopyctl is not built")
    harness.main([(function.__name__, function) for function in CASES])
