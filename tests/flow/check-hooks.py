#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""--hook: which events the program is told, in which order and with what, and that its veto is the source's gain.  (F24, F56)"""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from service import BLOCK, PAGE, Service, missing_programs  # noqa: E402


def hook(case, body=""):
    """A program that notes each of its runs, then does @body."""
    path = case.path("hook")
    with open(path, "w", encoding="ascii") as f:
        f.write(f"""#!/bin/sh
echo "$1 $POSTCOPY_EVENT $POSTCOPY_STATE ${{POSTCOPY_RUN_DIR##*/}} $POSTCOPY_MACHINE|$POSTCOPY_REASON" >> {case.path("runs")}
{body}
""")
    os.chmod(path, 0o755)
    return path


def runs(case):
    try:
        with open(case.path("runs"), encoding="utf-8") as f:
            return f.read().splitlines()
    except FileNotFoundError:
        return []


def names(case):
    return [line.split()[0] for line in runs(case)]


def whole_session(case, *source_options):
    service = Service(case, "--hook", hook(case), stay=False)
    service.sharer("vm", "main", threads=1)
    source = service.source(*source_options)
    source.completed()
    service.ended(0)
    return service


def told_in_order(case):
    """Without PING 0x42 the commit is the package, so it comes before the VMM has loaded."""
    whole_session(case, "--machine", "pc-q35-9.9")
    check_equal(sorted(names(case)), sorted(["probe", "listening", "commit", "loaded", "completed"]), "events")
    order = names(case)
    check(order[0] == "probe" and order[-1] == "completed", f"order {order}")
    check(order.index("listening") < order.index("loaded"), f"order {order}")
    first = runs(case)[0]
    check(first.startswith("probe probe ") and " run0 pc-q35-9.9|" in first, f"what it is told: {first!r}")


def told_with_commit_ping(case):
    whole_session(case, "--commit-ping")
    check_equal(names(case), ["probe", "listening", "loaded", "commit", "completed"], "events")


def last_word_is_heard(case):
    """The daemon exits only when the program has ended."""
    service = Service(case, "--hook", hook(case, f'[ $1 != completed ] || {{ sleep 1; echo > {case.path("done")}; }}'), stay=False)
    service.sharer("vm", "main")
    service.source().completed()
    service.ended(0)
    check(os.path.exists(case.path("done")), "the hook was cut short")


def faults_do_not_wait(case):
    """A program that sleeps through LISTENING delays nobody."""
    service = Service(case, "--hook", hook(case, '[ $1 = probe ] || sleep 60'))
    vm = service.sharer("vm", "main")
    service.source("--no-background", "--linger", "60000")
    vm.event("running")
    vm.do(f"touch {BLOCK} 0 4")
    vm.saw(3 * PAGE)
    check_equal(len(names(case)), 2, "runs: the probe, and the one that sleeps")


def refused(case, service, *words):
    vm = service.sharers[0]
    service.wait_state("failed")
    reason = service.status()["error"]["reason"]
    for word in words:
        check(word in reason, f"{word!r} is not in {reason!r}")
    check(not vm.has("running"), "it was told to run")
    wait_for("the hook to be told", lambda: "failed" in names(case))
    check_equal(names(case), ["probe", "failed"], "events")


def veto(case):
    """The source has not committed: it has sent PING 0x42 and gets no answer."""
    service = Service(case, "--hook", hook(case, '[ $1 != probe ] || { echo "no room"; echo "on this host" >&2; exit 7; }'))
    service.sharer("vm", "main")
    service.source("--commit-ping").ended("source-resumes")
    refused(case, service, "refuses it (status 7): no room on this host")


def veto_by_silence(case):
    """It does not end, and neither does what it started, which holds its pipe."""
    service = Service(case, "--hook-timeout", "1", "--hook", hook(case, '[ $1 != probe ] || { sleep 300 & echo $! > $0.pid; wait; }'))
    case.defer(lambda: os.kill(int(open(case.path("hook.pid"), encoding="ascii").read()), 9))
    service.sharer("vm", "main")
    source = service.source("--commit-ping")
    text = service.wait_blocker("hook")
    check("probe has not ended" in text, f"blocker {text!r}")
    source.ended("source-resumes")
    refused(case, service, "did not answer within 1 s (--hook-timeout)")


def veto_by_absence(case):
    service = Service(case, "--hook", case.path("nobody"))
    service.sharer("vm", "main")
    service.source("--commit-ping").ended("source-resumes")
    service.wait_state("failed")
    reason = service.status()["error"]["reason"]
    check("cannot be asked" in reason and case.path("nobody") in reason, reason)


def veto_that_is_no_text(case):
    service = Service(case, "--hook", hook(case, r"[ $1 != probe ] || { printf '\377\376'; exit 1; }"))
    service.sharer("vm", "main")
    service.source("--commit-ping").ended("source-resumes")
    refused(case, service, "refuses it (status 1): (not UTF-8)")


def later_failures_only_warn(case):
    service = Service(case, "--hook", hook(case, '[ $1 = probe ] || { echo bad luck; exit 3; }'), stay=False)
    service.sharer("vm", "main")
    service.source().completed()
    service.ended(0)
    check("bad luck" in service.log() and "(status 3)" in service.log(), "it is logged")


def control_hears_it_too(case):
    """Without any --hook."""
    service = Service(case)
    events = case.spawn("events", [built("postcopyctl"), "-r", service.run_dir, "--json", "events"])
    time.sleep(0.3)
    service.sharer("vm", "main")
    service.source("--commit-ping").completed()
    service.wait_state("complete")

    def heard():
        return [json.loads(line)["event"] for line in events.lines()]
    wait_for("the events", lambda: "complete" in heard())
    check_equal([e for e in heard() if e in ("loaded", "commit")], ["loaded", "commit"], "events")


def file_of_options(case):
    """The hook in --config, and its options' limits."""
    for text, word in (("hook-timeout=0", "hook-timeout"), ("hook=", "hook")):
        with open(case.path("conf"), "w", encoding="ascii") as f:
            f.write(f"[postcopyd]\n{text}\n")
        done = subprocess.run([built("postcopyd"), "--config", case.path("conf"), "--incoming", "tcp::0", "--run-dir",
                               case.path("run")], capture_output=True, text=True, timeout=10, check=False)
        check_equal(done.returncode, 2, f"status with {text}")
        check(word in done.stderr, f"{word!r} is not in {done.stderr!r}")


CASES = [told_in_order, told_with_commit_ping, last_word_is_heard, faults_do_not_wait, veto, veto_by_silence, veto_by_absence,
         veto_that_is_no_text, later_failures_only_warn, control_hears_it_too, file_of_options]

if __name__ == "__main__":
    if missing_programs():
        skip_all("not built: " + ", ".join(missing_programs()))
    main([(function.__name__, function) for function in CASES])
