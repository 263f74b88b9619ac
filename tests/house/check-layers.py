#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Rooms and arrows: who may include whom, and which words may stand where.

The tables are the rules.  What core and wire take from outside is read from the symbols of their
objects, so that no macro can hide a call.
"""
import os
import re
import subprocess

import tree

#: room -> rooms it may include (postcopy is the public header); bare names are of the same room
ARROWS = {
    "core": {"core"},
    "wire": {"core", "wire"},
    "sys": {"core", "wire", "sys"},
    "client": {"core", "wire", "sys", "client", "postcopy"},
    "daemon": {"core", "wire", "sys", "daemon", "postcopy"},
    "tools": {"core", "wire", "sys", "tools", "postcopy"},
}

#: room -> system headers; all of them harmless: no file, no clock, no thread is to be had from them
_PURE = {"assert.h", "errno.h", "inttypes.h", "limits.h", "stdbool.h", "stddef.h", "stdint.h",
         "stdlib.h", "string.h"}
HEADERS = {
    "core": _PURE | {"sys/sdt.h"},
    "wire": _PURE | {"endian.h", "json-glib/json-glib.h", "stdarg.h", "stdio.h",
                     "xxhash.h"},
}

MAINS = r"src/(daemon/main|tools/(postcopyctl|postcopy-source))\.c"
_BELOW = r"src/(core|wire|sys|client)/"

#: (rule, words, where it is looked for, who may say it, an example of what must be found)
WORDS = (
    ("UFFDIO_ is said by sys/uffd alone", r"\bUFFDIO_", r"src/",
     r"src/sys/(uffd(_open|_wp)?\.[ch]|uapi\.h)", "ioctl(fd, UFFDIO_COPY, &c);"),
    ("io_uring_ is said by sys/ring alone", r"\bio_uring_", r"src/", r"src/sys/ring\.c",
     "io_uring_submit(r);"),
    ("JSON is read and written by wire/jsonmsg alone",
     r"\bJson[A-Z]|json-glib|\bjson_(object|array|node|parser|builder|reader|generator)_", r"src/",
     r"src/wire/jsonmsg\.c", "json_builder_new();"),
    ("GLib lives in daemon and tools", r"[<\"](glib|gio)|\bg_[a-z_]+\s*\(|\bG_[A-Z]+", r"src/",
     r"src/(daemon|tools)/|src/wire/jsonmsg\.c", "g_free(p);"),
    ("no lock in core, wire, sys and client",
     r"\b(pthread_(mutex|rwlock|spin|cond)_|mtx_|cnd_|sem_(init|wait|post)|flockfile)", _BELOW, None,
     "pthread_mutex_lock(&m);"),
    ("no thread begins in core, wire, sys and client", r"\b(pthread_create|thrd_create)\b", _BELOW,
     None, "pthread_create(&t, NULL, f, NULL);"),
    ("core, wire, sys and client print nothing",
     r"\b(v?f?printf|v?dprintf|puts|fputs|putchar|perror|v?syslog)\s*\(|\bSTD(OUT|ERR)_FILENO\b", _BELOW,
     r"src/client/preload\.c", "fprintf(stderr, text);"),
    ("nobody but main() ends the process", r"\b(exit|quick_exit|abort)\s*\(", r"src/", MAINS, "exit(1);"),
    ("_exit is for the child that sys/uffd forks, and for a program that must not run unserved",
     r"\b(_exit|_Exit)\s*\(", r"src/", MAINS + r"|src/sys/uffd\.c|src/client/preload\.c", "_exit(0);"),
    ("no goto", r"\bgoto\b", r"src/", None, "goto out;"),
    ("no unbounded text", r"\b(strcat|v?sprintf|gets)\s*\(", r"src/", None,
     "sprintf(a, b);"),
    ("unfinished work is in the issues, not in the code", r"TODO|FIXME|\bXXX\b", r"src/|include/", None,
     "int TODO;"),
)

_MEMORY = {"memchr", "memcmp", "memcpy", "memmove", "memset", "strchr", "strcmp", "strlen", "strncmp",
           "strnlen"}
_COMPILER = {"__assert_fail", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}

#: archive -> what its objects may leave undefined, beside what core and wire define themselves
CALLS = {
    "libcore.a": _MEMORY | _COMPILER | {"calloc", "free"},
    "libwire.a": _MEMORY | _COMPILER | {"free", "snprintf", "strcspn", "strdup", "strpbrk", "strspn",
                                        "strstr", "strtoull", "vsnprintf"},
}
_INSTRUMENTED = re.compile(r"__(asan|tsan|ubsan|sanitizer|sancov|gcov|llvm_profile)")


def sources(room=None):
    return tree.files(rf"^src/{room or '[a-z]+'}/.*\.[ch]$")


def code(path):
    return tree.without_comments(tree.read(path))


def strays(room, pattern, allowed):
    """Includes of @room found by @pattern that @allowed does not accept."""
    return [f"{path} includes {name}" for path in sources(room)
            for name in re.findall(pattern, code(path), re.M) if not allowed(name)]


def arrows_broken(room):
    def allowed(name):
        return name == "config.h" or "/" not in name or name.split("/")[0] in ARROWS[room]
    return strays(room, r'^#\s*include\s+"([^"]+)"', allowed)


def headers_broken(room):
    return strays(room, r"^#\s*include\s+<([^>]+)>", lambda name: name in HEADERS[room])


def words_broken(words, where, who):
    wrong = []
    for path in tree.files(rf"^({where}).*\.[ch]$"):
        if who and re.match(rf"({who})", path):
            continue
        for number, line in enumerate(code(path).splitlines(), 1):
            if re.search(words, line):
                wrong.append(f"{path}:{number}: {line.strip()}")
    return wrong


def symbols(objects, *options):
    out = subprocess.run(["nm", *options, os.path.join(tree.BUILD, ".libs", objects)],
                         capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in out.splitlines() if line and not line.endswith(":")}


def calls_broken(archive):
    own = symbols("libcore.a", "--defined-only") | symbols("libwire.a", "--defined-only")
    taken = symbols(archive, "-u") - own
    plain = {re.sub(r"^__(isoc\d+_)?(\w+?)(_chk)?$", r"\2", s) if s not in _COMPILER else s
             for s in taken}
    return [f"calls {name}" for name in sorted(plain - CALLS[archive])]


def check_calls(tap):
    names = {"libcore.a": "core calls memory functions only, and the heap in engine set-up",
             "libwire.a": "wire calls functions on memory and text only"}
    for archive, name in names.items():
        if not os.path.exists(os.path.join(tree.BUILD, ".libs", archive)):
            tap.skip(name, "not built")
        elif any(_INSTRUMENTED.search(s) for s in symbols(archive, "-u")):
            print(f"# not looked at, the objects are instrumented: {name}")
        else:
            tap.check(name, calls_broken(archive))


def variables(path):
    """Names of what an object keeps in writable memory; constants that hold addresses are not writable."""
    out = subprocess.run(["objdump", "-t", path], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in out.splitlines())
    return [row[-1] for row in rows
            if "O" in row and re.search(r" \.(data(?!\.rel\.ro)|bss|tdata|tbss)\b| \*COM\*", " ".join(row))]


def check_variables(tap):
    name = "no variable of a file can change outside main.c and the preload"
    objects = [os.path.join(where, o) for where, _, names in os.walk(os.path.join(tree.BUILD, "src"))
               for o in names if o.endswith(".o")]
    if not objects:
        tap.skip(name, "not built")
    elif any(_INSTRUMENTED.search(s) for o in objects for s in symbols(o, "-u")):
        print(f"# not looked at, the objects are instrumented: {name}")
    else:
        tap.check(name, [f"{os.path.relpath(o, tree.BUILD)}: {v}" for o in sorted(objects)
                         if not re.search(r"main\.o$|/(libpostcopy_preload_la-)?preload(_env)?\.o$", o)
                         for v in variables(o)])


def main():
    tap = tree.Tap()
    rooms = {path.split("/")[1] for path in sources()}
    tap.check("every room has its arrows", sorted(rooms ^ set(ARROWS)))
    for room, may in ARROWS.items():
        tap.check(f"{room} includes {', '.join(sorted(may))} only", arrows_broken(room))
    for room in HEADERS:
        tap.check(f"{room} takes harmless system headers only", headers_broken(room))
    for rule, words, where, who, example in WORDS:
        wrong = words_broken(words, where, who)
        if not re.search(words, example):
            wrong.append(f"the rule does not even find: {example}")
        tap.check(rule, wrong)
    check_calls(tap)
    check_variables(tap)
    tap.done()


if __name__ == "__main__":
    main()
