# SPDX-License-Identifier: GPL-2.0-or-later
"""A VMM's end of vhost-user devices whose back-ends are behind postcopyd, with memory that is still elsewhere.

    stage = Interposed(case, {"disk": back.path})
    ring = Ring(stage.image) ...        what the guest had written before it moved
    front = stage.front("disk")         the VMM connects; it never touches memory itself
    stage.begin(*PATIENT)                  the package; faults are served from here on
    memory = stage.finish()

The main sharer is lib/sharer; the memory is its memfd.
"""
import os

from harness import PATIENCE, Failure, check, wait_for
from service import BLOCK, MIB, Service
from vhostuser import FrontEnd


class Interposed:
    """@backends: {name: path}; @options: {name: ",dialect=spec"}."""

    def __init__(self, case, backends, options=None, size=4 * MIB, daemon=(), memory="memfd=create", page="4096"):
        self.case, self.size = case, size
        self.image = bytearray(case.random.randbytes(size))
        self._image_path = case.path("image")
        self._fronts = {name: case.path(f"{name}.front") for name in backends}
        words = [f"--vhost-user=name={name},front={self._fronts[name]},back={path}{(options or {}).get(name, '')}"
                 for name, path in backends.items()]
        self.service = Service(case, *words, *daemon, size=size)
        self.vm = self.service.sharer("vm", "main", memory=memory)
        self.memory = os.open(self.vm.path(), os.O_RDWR)
        case.defer(lambda: os.close(self.memory))
        self.source, self._page = None, page

    def front(self, name="disk", regions=None, also=0, plain=False):
        """A VMM connects, as far as it goes before its guest runs.  @also: features of the protocol; @plain: it
        knows of none.
        """
        front = FrontEnd(self._fronts[name], self.memory, regions or [(0, self.size)])
        self.case.defer(front.close)
        if plain:
            front.begin_plain()
        else:
            front.begin(also)
        return front

    def path(self, name="disk"):
        """Where the VMM finds it."""
        return self._fronts[name]

    def begin(self, *options):
        with open(self._image_path, "wb") as image:
            image.write(self.image)
        block = f"{BLOCK},size={self.size},file={self._image_path},page={self._page}"
        self.source = self.service.source(*options, blocks=[block])
        self.vm.event("listening")

    def pause(self):
        """Nothing comes from the source any more, until resume()."""
        self.source.child.freeze()

    def resume(self):
        self.source.child.thaw()

    def content(self):
        """As it is now; looking does not fill holes."""
        return os.pread(self.memory, self.size, 0)

    def finish(self):
        """All of it is here."""
        self.source.completed()
        self.vm.event("complete")
        return self.content()

    # --- what the daemon says ---------------------------------------------------------------------

    def device(self, name="disk"):
        return next(d for d in self.service.control("vhost-user") if d["name"] == name)

    def wait_device(self, name="disk", timeout=PATIENCE, **wanted):
        """Until it is reported like that."""
        def probe():
            now = self.device(name)
            return now if all(now.get(key) == value for key, value in wanted.items()) else None
        try:
            return wait_for(f"{name} to be {wanted}", probe, timeout, 0.02)
        except Failure as failure:
            raise Failure(f"{failure}; it is {self.device(name)}") from None

    def faults(self, name="disk"):
        """Of every process that has been this back-end."""
        return sum(s["faults"] for s in self.service.stats()["sharers"] if s["name"] == name)

    def sharers(self, name="disk"):
        """How many the daemon knows that have not ended."""
        return sum(s["name"] == name and s["state"] not in ("left", "dead") for s in self.service.control("sharers"))

    def check_healthy(self):
        """Nobody was harmed: the others go on, and no page came twice or from nowhere."""
        self.service.child.check_running()
        stats = self.service.stats()
        check(stats["alarms"] == 0, f"integrity alarms: {stats['alarms']}")
        check(self.service.status()["stray_pages"] == 0, "pages that nobody may have written")
