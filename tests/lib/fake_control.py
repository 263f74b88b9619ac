# SPDX-License-Identifier: GPL-2.0-or-later
"""A postcopyd that is only its control socket: answers from a script, for the tests of postcopyctl."""
import json
import os
import socket
import threading
import time

NS = 1000000000


def latency(unit):
    return {"count": unit, "mean_ns": unit * 10, "p50_ns": unit * 11, "p90_ns": unit * 12, "p99_ns": unit * 13,
            "max_ns": unit * 14}


def sharer_stats(faults):
    stages = ["total", "queue", "wire", "placement", "wake"]
    return {"faults": faults, "reads": faults // 2, "writes": faults - faults // 2, "duplicates": 3, "refaults": 2,
            "present": 5, "requests": faults // 3, "wakes": faults, "spurious": 1, "blocked_ns": 7 * NS,
            "blocked_threads_ns": 9 * NS, "latency": {s: latency(1000 * (i + 1)) for i, s in enumerate(stages)}}


class Session:
    """A migration of @pages pages that makes progress by @step at every status request."""

    def __init__(self, pages=262144, step=4096):
        self.pages, self.step = pages, step
        self.present = 0
        self.state = "running"
        self.reason = None
        self.blockers = []
        self.handover = None
        self.clock = 100 * NS
        self.end = "complete"

    def tick(self):
        self.clock += NS // 4
        self.present = min(self.pages, self.present + self.step)
        if self.present == self.pages and self.state == "running":
            self.state = self.end
            if self.end == "failed":
                self.reason = "the source sent rubbish"

    def status(self):
        self.tick()
        return {"now_ns": self.clock, "state": self.state, "state_since_ns": 88 * NS,
                "times": {"started_ns": 80 * NS, "switchover_ns": 87 * NS, "listening_ns": 87 * NS,
                          "first_fault_ns": 88 * NS, "first_served_ns": 88 * NS, "running_ns": 88 * NS,
                          "complete_ns": None},
                "committed": True, "commit_ping": False, "urgent_lane": True, "ownership_unknown": False,
                "running_told": True, "main_eof": False, "shut_sent": False, "source_closed": False,
                "error": {"errno": 71, "reason": self.reason} if self.reason else None,
                "machine": "pc-i440fx-7.2", "source": "127.0.0.1:40404",
                "package": {"bytes": 123456, "device_offset": 20, "device_bytes": 123000},
                "owed_pages": self.pages, "owed_pages_left": self.pages - self.present, "faults_in_flight": 12,
                "requests_in_flight": 34, "store_bytes": 16 << 20, "stray_pages": 0, "pool_waits": 0, "blocks": 2, "sharers": 2}

    def blocks(self):
        missing = self.pages - self.present
        requested = min(missing, 34)
        return [{"name": "pc.ram", "kind": "shared", "sharers": 2, "length": self.pages * 4096, "page_size": 4096,
                 "pages": self.pages, "owed": self.pages, "present": self.present, "missing": missing,
                 "requested": requested, "stored": 0, "zero": 0, "lost": 0},
                {"name": "vga.vram\033[31m", "kind": "held", "sharers": 0, "length": 16 << 20, "page_size": 4096,
                 "pages": 4096, "owed": 0, "present": 4096, "missing": 0, "requested": 0, "stored": 0, "zero": 0,
                 "lost": 0}]

    def sharers(self):
        row = {"generation": 1, "pid": 4242, "policy": "fail", "state": "active", "state_since_ns": 70 * NS,
               "error": None, "mappings": 3, "mapped_bytes": 1 << 30, "waiting": 6, "oldest_wait_ns": 1500000}
        return [dict(row, id=1, name="vmm", main=True),
                dict(row, id=2, name="net\033]0;owned\007", main=False, policy="disable", state="disabled",
                     error={"errno": 5, "reason": "its userfaultfd is gone"})]

    def stats(self):
        lane = {"pages": {"copy": self.present, "zero": self.present // 2, "already": 1, "noted": 2}, "duplicates": 0,
                "batches": 9}
        return {"now_ns": self.clock, "total": sharer_stats(3000),
                "sharers": [dict(sharer_stats(2000), id=1, name="vmm"), dict(sharer_stats(1000), id=2, name="net")],
                "lanes": {"main": dict(lane, bytes=self.present * 4096), "urgent": dict(lane, bytes=self.present * 40),
                          "store": dict(lane, bytes=0)},
                "requests": 900, "requested_pages": 950, "rerequested": 0, "removed": 0, "alarms": 0, "again": 0,
                "place_fallbacks": 0, "return_bytes": 30000, "syscalls": {"ring": 5000, "other": 20}}


class FakeControl:
    """Serves clients until close(); `vanish_at` closes everything when that many pages are present."""

    def __init__(self, path, session, greeting=None, vanish_at=None, final_event=None, refuse_quit=None):
        self.session, self.greeting = session, greeting
        self.vanish_at, self.final_event, self.refuse_quit = vanish_at, final_event, refuse_quit
        self.requests = []
        self.lock = threading.Lock()
        self.conns = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.path = path
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            self.conns.append(conn)
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def send(self, conn, value):
        conn.sendall(json.dumps(value, ensure_ascii=False).encode() + b"\n")

    def event(self, state, text):
        for conn in list(self.conns):
            try:
                self.send(conn, {"event": state, "data": {"state": state, "text": text},
                                 "timestamp": {"seconds": 1700000000, "microseconds": 250000}})
            except OSError:
                pass

    def answer(self, request):
        name = request["execute"]
        if name == "quit":
            if self.refuse_quit and not request.get("arguments", {}).get("force"):
                return {"error": {"class": "Refused", "desc": self.refuse_quit}}
            return {"return": {}}
        if name == "events":
            return {"return": {"enabled": True}}
        if name == "blockers":
            return {"return": self.session.blockers}
        if name.startswith("vhost-user"):
            return {"return": self.session.vhosts if name == "vhost-user" else {}}
        if name == "handover":
            if not self.session.handover:
                return {"error": {"class": "Unavailable", "desc": "nothing is handed over"}}
            return {"return": self.session.handover}
        return {"return": getattr(self.session, name)()}

    def serve(self, conn):
        try:
            self.send(conn, self.greeting or {"postcopyd": {"version": "0", "capabilities": []}})
            for line in conn.makefile("r"):
                with self.lock:
                    request = json.loads(line)
                    self.requests.append(request)
                    reply = self.answer(request)
                    self.send(conn, dict({"id": request["id"]}, **reply))
                    if self.vanish_at is not None and self.session.present >= self.vanish_at:
                        if self.final_event:
                            self.event(*self.final_event)
                        self.close()
        except OSError:
            pass

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for conn in self.conns:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if os.path.exists(self.path):
            os.unlink(self.path)


if __name__ == "__main__":
    import sys
    fake = FakeControl(sys.argv[1], Session(step=int(sys.argv[2])))
    if len(sys.argv) > 3:
        fake.session.blockers = [{"name": "sharer:net", "step": "listening", "text": "it has not said hello",
                                  "since_ns": 95 * NS}]
    time.sleep(float(os.environ.get("SECONDS_TO_LIVE", "60")))
