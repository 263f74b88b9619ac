# SPDX-License-Identifier: GPL-2.0-or-later
"""Test cases with deadlines, children that always end, and TAP.

A case is a function that takes a Case.  Whatever it starts through the Case is ended by pid when it
is over, however it ends; its directory goes too; the logs are printed when it failed.  Nothing
waits without a deadline, and a wait that fails says what it waited for.
"""
import atexit
import ctypes
import os
import random
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback

PR_SET_PDEATHSIG = 1
LOG_TAIL = 60
#: Seconds for what must come and does; only what fails waits so long, and machines do other things, too.
PATIENCE = 60.0
SKIP_EXIT = 77
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer",
                   "runtime error: ")

TOP_SRCDIR = os.environ.get("POSTCOPY_TOP_SRCDIR") or os.path.abspath(
    os.path.join(os.path.dirname(__file__), "..", ".."))
TOP_BUILDDIR = os.environ.get("POSTCOPY_TOP_BUILDDIR") or TOP_SRCDIR


class Failure(Exception):
    """What was expected did not happen."""


class Deadline(Failure):
    """A wait took too long."""


class Skip(Exception):
    """The machine lacks what the case needs."""


def check(condition, text):
    if not condition:
        raise Failure(text)


def check_equal(got, wanted, what):
    if got != wanted:
        raise Failure(f"{what}: {got!r}, not {wanted!r}")


def signals_end():
    """Of processes that are started from here on: what a sanitizer would report is theirs to die of, as without it."""
    os.environ["ASAN_OPTIONS"] = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "handle_segv=0:handle_abort=0")))


def wait_for(what, probe, timeout=PATIENCE, interval=0.01):
    """Call @probe until it returns something true, which is returned."""
    end = time.monotonic() + timeout
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > end:
            raise Deadline(f"waited {timeout:g} s for {what}")
        time.sleep(interval)


def built(*names):
    """The first of these build results that exists, else None."""
    for name in names:
        path = os.path.join(TOP_BUILDDIR, name)
        if os.access(path, os.X_OK):
            return path
    return None


_copies = {}


def for_everybody(path):
    """The file, or a copy of it, where other users may read it: a build tree can be in somebody's home."""
    def open_to_all(name, mode):
        return os.stat(name).st_mode & mode == mode
    folder, private = os.path.abspath(path), not open_to_all(path, stat.S_IROTH)
    while folder != "/" and not private:
        folder = os.path.dirname(folder)
        private = not open_to_all(folder, stat.S_IXOTH)
    if not private:
        return path
    if path not in _copies:
        home = tempfile.mkdtemp(prefix="pc-public-")
        atexit.register(shutil.rmtree, home, True)
        os.chmod(home, 0o755)
        _copies[path] = shutil.copy(path, home)
        os.chmod(_copies[path], 0o755)
    return _copies[path]


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A process whose output goes to files in the case's directory."""

    def __init__(self, case, name, argv, stdin=subprocess.DEVNULL, pass_fds=(), env=None):
        self.name = name
        self.argv = argv
        self.out_path = case.path(name + ".out")
        self.err_path = case.path(name + ".err")
        environment = dict(os.environ, TMPDIR=case.dir, **(env or {}))
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.proc = subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=err,
                                         pass_fds=pass_fds, preexec_fn=_die_with_parent,
                                         env=environment)
        self.pid = self.proc.pid

    def running(self):
        return self.proc.poll() is None

    def check_running(self):
        check(self.running(), f"{self.name} ended with status {self.proc.returncode}")

    def kill(self, sig=signal.SIGKILL):
        if self.running():
            self.proc.send_signal(sig)

    def freeze(self):
        """SIGSTOP, and every thread of it stands: until one of them has taken the signal, the others go on."""
        self.kill(signal.SIGSTOP)
        wait_for(f"{self.name} to stand still", lambda: set(self._thread_states()) == {"T"}, interval=0.001)

    def thaw(self):
        self.kill(signal.SIGCONT)

    def _thread_states(self):
        tasks = f"/proc/{self.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/stat", encoding="ascii", errors="replace") as stat:
                yield stat.read().rpartition(")")[2].split()[0]

    def stop(self, grace=2.0):
        """SIGTERM, then SIGKILL; always reaped."""
        self.kill(signal.SIGTERM)
        try:
            self.proc.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
            self.proc.wait()

    def wait(self, timeout=PATIENCE):
        try:
            return self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Deadline(f"waited {timeout:g} s for {self.name} to end") from None

    def lines(self):
        """Complete lines of its output so far."""
        with open(self.out_path, "rb") as out:
            text = out.read().decode(errors="replace")
        return text[:text.rfind("\n") + 1].splitlines()

    def sanitizer_spoke(self):
        errors = self.errors()
        return any(mark in errors for mark in SANITIZER_MARKS)

    def errors(self):
        with open(self.err_path, "rb") as err:
            return err.read().decode(errors="replace")


class Case:
    """What one test case owns."""

    def __init__(self, name, seed):
        self.name = name
        self.seed = seed
        self.random = random.Random(seed)
        self.dir = tempfile.mkdtemp(prefix="pc-interop-")
        self.children = []
        self._undo = []
        self._notes = []
        self._inquiries = []

    def path(self, name):
        return os.path.join(self.dir, name)

    def spawn(self, name, argv, **kwargs):
        child = Child(self, name, argv, **kwargs)
        self.children.append(child)
        return child

    def defer(self, undo):
        """Call @undo when the case is over, last first."""
        self._undo.append(undo)

    def note(self, text):
        """Something worth a line of diagnostics, also when the case passes."""
        self._notes.append(text)

    def ask_on_failure(self, what, inquiry):
        """What @inquiry returns is printed when the case fails, before anything is ended."""
        self._inquiries.append((what, inquiry))

    def _print_inquiries(self):
        for what, inquiry in self._inquiries:
            try:
                diag(f"{what}: {inquiry()}")
            except Exception as error:  # it may well be dead by now
                diag(f"{what}: {error}")

    def close(self, ok):
        """End everything, print what is to be said; False when the case failed or a sanitizer spoke."""
        try:
            if not ok:
                self._print_inquiries()
        finally:
            self._end_everything()
        try:
            for text in self._notes:
                diag(text)
            reports = [child.name for child in self.children if child.sanitizer_spoke()]
            if reports:
                diag(f"sanitizer reports of {', '.join(reports)}")
            if reports or not ok:
                self._print_logs()
            return ok and not reports
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    def _end_everything(self):
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception as error:  # one undo that fails must not keep the others
                self._notes.append(f"clean-up: {error}")
        for child in reversed(self.children):
            child.stop(grace=1.0)

    def _print_logs(self):
        for child in self.children:
            diag(f"--- {child.name}: status {child.proc.returncode}: {' '.join(child.argv)}")
            for path in (child.out_path, child.err_path):
                with open(path, "rb") as log:
                    lines = log.read().decode(errors="replace").splitlines()
                if len(lines) > LOG_TAIL:
                    diag(f"    … {len(lines) - LOG_TAIL} lines left out")
                for line in lines[-LOG_TAIL:]:
                    diag(f"    {os.path.basename(path)}: {line}")


def diag(text):
    for line in str(text).splitlines() or [""]:
        print(f"# {line}", flush=True)


def _on_alarm(_signum, _frame):
    raise Deadline("the case as a whole took too long")


def _run_case(case, function, limit):
    """(ok, directive)"""
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        function(case)
        return True, ""
    except Skip as skip:
        if os.environ.get("POSTCOPY_TESTS_MUST_RUN") == "1":
            diag(f"must run, but: {skip}")
            return False, ""
        return True, f" # SKIP {skip}"
    except Failure as failure:
        diag(f"{type(failure).__name__}: {failure}")
        for line in traceback.format_exc().splitlines():
            if 'File "' in line:
                diag(line)
    except Exception:
        diag(traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return False, ""


def _seed():
    text = os.environ.get("POSTCOPY_TESTS_SEED")
    return int(text, 0) if text else int.from_bytes(os.urandom(4), "little")


def _selected(cases, wanted):
    if not wanted:
        return cases
    unknown = [w for w in wanted if not any(w in name for name, _ in cases)]
    if unknown:
        sys.exit(f"no case is called {', '.join(unknown)}; there are: "
                 + ", ".join(name for name, _ in cases))
    return [(name, run) for name, run in cases if any(w in name for w in wanted)]


def main(cases, limit=180.0):
    """Run [(name, function)], all or those whose names contain an argument; exit with the verdict."""
    cases = _selected(cases, sys.argv[1:])
    signal.signal(signal.SIGALRM, _on_alarm)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seed = _seed()
    print(f"1..{len(cases)}", flush=True)
    diag(f"seed {seed} (POSTCOPY_TESTS_SEED)")
    failed = 0
    for number, (name, function) in enumerate(cases, 1):
        case = Case(name, seed)
        start = time.monotonic()
        ok, directive = False, ""
        try:
            ok, directive = _run_case(case, function, limit)
        finally:
            ok = case.close(ok)
        failed += not ok
        diag(f"{name}: {time.monotonic() - start:.1f} s")
        print(f"{'ok' if ok else 'not ok'} {number} - {name}{directive}", flush=True)
    sys.exit(1 if failed else 0)


def skip_all(reason):
    """Leave before the first case: the whole script cannot run here."""
    diag(reason)
    sys.exit(1 if os.environ.get("POSTCOPY_TESTS_MUST_RUN") == "1" else SKIP_EXIT)


def readable(sock, timeout):
    return bool(select.select([sock], [], [], timeout)[0])
