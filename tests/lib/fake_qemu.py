#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""fake_qemu.py MONITOR ANSWERS: a process that only has a monitor, and says what it was told to say.

ANSWERS is JSON: {command: value of "return"}, or {command: {"error": text}}; "command word" is a command with that word in
its arguments, and {"each": [...]} what it says one time after the other, the last of them from then on.  One that is not in
it is answered with an empty object.  Prints what it is asked.  Ends when its standard input does.
"""
import json
import os
import select
import socket
import sys

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}}, "capabilities": []}}


def is_meant(key, request):
    command, _, word = key.partition(" ")
    return command == request["execute"] and word in json.dumps(request.get("arguments", {}))


def reply(answers, request):
    print(request["execute"], *request.get("arguments", {}).values(), flush=True)
    value = next((answers[key] for key in answers if is_meant(key, request)), {})
    if isinstance(value, dict) and "each" in value:
        value = value["each"].pop(0) if len(value["each"]) > 1 else value["each"][0]
    if isinstance(value, dict) and "error" in value:
        return {"error": {"class": "GenericError", "desc": value["error"]}, "id": request.get("id")}
    return {"return": value, "id": request.get("id")}


def serve(listener, answers):
    """One client at a time, as a monitor does it."""
    conn = pending = None
    while True:
        ready, _, _ = select.select([sys.stdin, conn or listener], [], [])
        if sys.stdin in ready and not os.read(0, 100):
            return
        if conn is None and listener in ready:
            conn, pending = listener.accept()[0], b""
            conn.sendall(json.dumps(GREETING).encode() + b"\n")
        elif conn in ready:
            data = conn.recv(65536)
            if not data:
                conn = None
                continue
            *lines, pending = (pending + data).split(b"\n")
            for line in filter(bytes.strip, lines):
                conn.sendall(json.dumps(reply(answers, json.loads(line))).encode() + b"\n")


def main():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(1)
    serve(listener, json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
