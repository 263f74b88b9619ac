#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with devices of the kernel's VFIO, and no hardware.

Two kinds: mtty, of the kernel's samples, whose state can be migrated; and edu, QEMU's, a PCI device behind an emulated
IOMMU, which reads and writes memory by itself.

Debian builds no sample, so the module is built here, from the source, the headers and the tools of one version, which
are downloaded and unpacked, never installed.  What is left of them is a kit of some megabytes in the cache of
linuxguest.py: the kernel, the modules that both need, and mtty.  Run as a program it makes the kit and says where it is.
"""
import hashlib
import lzma
import os
import re
import subprocess
import sys
import tempfile

import linuxguest
from harness import Failure, Skip, TOP_SRCDIR, built, check
from linuxguest import Archive, FILE, FOLDER

SOURCE = "linux-source-6.12"
#: As they need each other.
MODULES = ("irqbypass", "vfio", "vfio_iommu_type1", "mdev", "mtty", "vfio-pci-core", "vfio-pci")
#: The guest's IOMMU has no interrupt remapping.
PARAMETERS = {"vfio_iommu_type1": "allow_unsafe_interrupts=1"}
#: One alone in its IOMMU group, and two functions of one slot, which share one.
DEVICES = ("intel-iommu,intremap=off", "edu,addr=4", "edu,addr=5.0,multifunction=on", "edu,addr=5.1")
SAMPLE = SOURCE + "/samples/vfio-mdev/mtty.c"
KERNEL = "vmlinuz"


def _run(words, cwd=None, timeout=300):
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False)
    check(done.returncode == 0, f"{' '.join(words)}: {(done.stdout + done.stderr)[-600:]}")


def _version():
    """6.12.N: the newest source that apt knows, None without one."""
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", SOURCE], capture_output=True, text=True,
                           timeout=60, check=False).stdout
    found = re.search(r"^Version: (6\.12\.\d+)-", shown, re.M)
    return found and found[1]


def _download(work, version):
    """{name of a package without its version: file}"""
    abi = f"{version}+deb12"
    wanted = [SOURCE, f"linux-image-{abi}-amd64", f"linux-headers-{abi}-amd64", f"linux-headers-{abi}-common",
              f"linux-kbuild-{abi}"]
    done = subprocess.run(["apt-get", "-q", "download", *wanted], capture_output=True, text=True, cwd=work,
                          timeout=600, check=False)
    if done.returncode:
        raise Skip(f"cannot download {', '.join(wanted)}: {done.stderr.strip()[-300:]}")
    return {package: os.path.join(work, name) for package in wanted for name in os.listdir(work)
            if name.startswith(package + "_")}


def _pipe(script, *words):
    _run(["bash", "-c", script, "bash", *words])


def _build(work, debs, version):
    """mtty.ko.  The tools find each other by relative links; the one absolute path is replaced."""
    headers = os.path.join(work, "root", "usr", "src", f"linux-headers-{version}+deb12-")
    module = os.path.join(work, "module")
    os.mkdir(module)
    for package, deb in debs.items():
        if "headers" in package or "kbuild" in package:
            _run(["dpkg-deb", "-x", deb, os.path.join(work, "root")])
    with open(headers + "amd64/Makefile", "w", encoding="ascii") as f:
        f.write(f"include {headers}common/Makefile\n")
    # The reader has what it wants long before the end: only its own status counts.
    _pipe('dpkg-deb --fsys-tarfile "$1" 2>/dev/null | tar -xO "./usr/src/$2.tar.xz" 2>/dev/null |'
          ' tar -xJO --occurrence=1 "$3" >"$4"', debs[SOURCE], SOURCE, SAMPLE, os.path.join(module, "mtty.c"))
    with open(os.path.join(module, "Makefile"), "w", encoding="ascii") as f:
        f.write("obj-m := mtty.o\n")
    _run(["make", "-C", headers + "amd64", f"M={module}", "PAHOLE=true", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"])
    return os.path.join(module, "mtty.ko")


def _plain(path):
    with (lzma.open(path) if path.endswith(".xz") else open(path, "rb")) as f:
        return f.read()


def _make(work, version):
    """A folder with all that is kept."""
    debs = _download(work, version)
    image = next(deb for package, deb in debs.items() if "image" in package)
    unpacked, made = os.path.join(work, "image"), os.path.join(work, "kit")
    os.mkdir(made)
    _run(["dpkg-deb", "-x", image, unpacked])
    paths = {name: linuxguest.find(unpacked, re.escape(name) + r"\.ko(\.xz)?") for name in MODULES if name != "mtty"}
    paths["mtty"] = _build(work, debs, version)
    for name, path in paths.items():
        with open(os.path.join(made, name + ".ko"), "wb") as f:
            f.write(_plain(path))
    os.rename(linuxguest.find(unpacked, r"vmlinuz-.*"), os.path.join(made, KERNEL))
    return made


def kit():
    folder = linuxguest.cache()
    parts = hashlib.sha256(" ".join(MODULES).encode()).hexdigest()[:8]
    kept = sorted(name for name in os.listdir(folder) if re.fullmatch(rf"vfio-6\.12\.\d+-{parts}", name))
    if kept:
        return os.path.join(folder, kept[-1])
    if os.geteuid() == 0:
        linuxguest.apt("apt-get", "-q", "update")       # what an old list names may be gone by now
    version = _version()
    if version is None:
        raise Skip(f"apt knows no {SOURCE} (bookworm-security, apt-get update)")
    target = os.path.join(folder, f"vfio-{version}-{parts}")
    with tempfile.TemporaryDirectory(dir=folder) as work:
        try:
            os.rename(_make(work, version), target)
        except OSError:
            check(os.path.isdir(target), f"{target} cannot be made")    # somebody else was faster
    return target


def libraries(programs):
    """Paths of all that they are linked to, and of what loads it."""
    shown = subprocess.run(["ldd", *programs], capture_output=True, text=True, timeout=60, check=False,
                           env={**os.environ, "LD_LIBRARY_PATH": built(".libs") or ""}).stdout
    return sorted(set(re.findall(r"^\s+(?:\S+ => )?(/\S+)", shown, re.M)))


def _real(program):
    """A program itself where what was built is a script that finds its libraries."""
    inner = os.path.join(os.path.dirname(program), ".libs", os.path.basename(program))
    return inner if os.path.exists(inner) else program


def initramfs(parts, busybox, programs):
    archive = Archive()
    for folder in ("bin", "dev", "lib", "lib64", "proc", "sys", "modules"):
        archive.add(folder, FOLDER)
    programs = [_real(program) for program in programs]
    for library in libraries(programs):
        folder = "lib64" if os.path.basename(library).startswith("ld-") else "lib"
        archive.add(f"{folder}/{os.path.basename(library)}", FILE, _plain(library))
    archive.add("bin/busybox", FILE, _plain(os.path.join(busybox, "bin", "busybox")))
    for module in MODULES:
        archive.add(f"modules/{module}.ko", FILE, _plain(os.path.join(parts, module + ".ko")))
    archive.add("modules/order", FILE, "".join(f"{m} {PARAMETERS.get(m, '')}\n" for m in MODULES).encode())
    for program in programs:
        archive.add(os.path.basename(program), FILE, _plain(program))
    for script, name in (("vfio_init.sh", "init"), ("vfio_daemon.sh", "vfio_daemon.sh")):
        archive.add(name, FILE, _plain(os.path.join(TOP_SRCDIR, "tests", "lib", "guest", script)))
    return archive.packed()


def start(case, qemu, programs):
    """The guest as a child of the case; what it says on its console are its lines."""
    parts = kit()
    initrd = case.path("initramfs")
    with open(initrd, "wb") as f:
        f.write(initramfs(parts, linuxguest.busybox(), programs))
    devices = [word for device in DEVICES for word in ("-device", device)]
    return case.spawn("guest", [
        qemu, "-accel", "tcg", "-M", "q35,kernel-irqchip=split", "-cpu", "max", "-m", "256", "-nodefaults",
        "-display", "none", "-no-reboot", "-serial", "stdio", *devices, "-kernel", os.path.join(parts, KERNEL),
        "-initrd", initrd, "-append", linuxguest.QUIET + " intel_iommu=on"])


if __name__ == "__main__":
    try:
        print(kit())
    except (Skip, Failure) as failure:
        sys.exit(str(failure))
