# SPDX-License-Identifier: GPL-2.0-or-later
"""A small QMP client: commands, events, and never a wait without a limit."""
import json
import os
import socket
import time

from harness import PATIENCE, Deadline, Failure, readable


class QmpError(Failure):
    """The command was refused."""

    def __init__(self, command, error):
        super().__init__(f"{command}: {error.get('desc')}")
        self.kind = error.get("class")


class Qmp:
    """One monitor connection; events are kept in order in .events."""

    def __init__(self, path, child, timeout=PATIENCE):
        self.events = []
        self._pending = b""
        self._child = child
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connect(path, time.monotonic() + timeout)
        self._reply("greeting", time.monotonic() + timeout, lambda m: "QMP" in m)
        self.command("qmp_capabilities")

    def _connect(self, path, end):
        while True:
            self._child.check_running()
            try:
                self._sock.connect(path)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end:
                    raise Deadline(f"no monitor at {os.path.basename(path)}") from None
                time.sleep(0.01)

    def close(self):
        self._sock.close()

    def _message(self, end):
        """The next message, None when @end is reached."""
        while b"\n" not in self._pending:
            if not readable(self._sock, max(0.0, end - time.monotonic())):
                return None
            data = self._sock.recv(65536)
            if not data:
                raise Failure(f"{self._child.name} closed its monitor")
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return json.loads(line)

    def _reply(self, what, end, accept):
        while True:
            message = self._message(end)
            if message is None:
                raise Deadline(f"no answer to {what}")
            if "event" in message:
                self.events.append(message)
            elif accept(message):
                return message

    def command(self, name, timeout=PATIENCE, **arguments):
        """Keys may be written with underscores: max_bandwidth=1 sends "max-bandwidth"."""
        request = {"execute": name}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self._sock.sendall(json.dumps(request).encode() + b"\n")
        answer = self._reply(name, time.monotonic() + timeout,
                             lambda m: "return" in m or "error" in m)
        if "error" in answer:
            raise QmpError(name, answer["error"])
        return answer["return"]

    def poll(self):
        """Take in what arrived; returns all events so far."""
        while (message := self._message(time.monotonic())) is not None:
            if "event" in message:
                self.events.append(message)
        return self.events

    def saw(self, name):
        return any(e["event"] == name for e in self.poll())

    def statuses(self):
        """The migration states announced so far (capability `events`)."""
        return [e["data"]["status"] for e in self.poll() if e["event"] == "MIGRATION"]
