"""One schedule in which the same images come again, change at their hosts, and what is remembered of them is lost.

Features depend on the fingerprint here, so that one that was computed under another is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.clock import Clock
from pipeline.ledger.layout import Keys
from pipeline.settings import FeatureSet, Settings
from tests.simulation.laws import Laws
from tests.simulation.reuse_laws import ReuseLaws, salt_of
from tests.simulation.scheduler import Proc
from tests.simulation.universe import Universe, simulated_settings
from tests.simulation.world import Hosts, StubServed, settings_of

KEYS = Keys("shop")
IMAGES = 10
"""Few enough that each comes again soon."""
KINDS = ("ok", "ok", "plain", "gone", "junk")


def reusing_settings() -> Settings:
    """Both sets use features again."""
    sets = {
        "demo": FeatureSet(net="n", blob="b", root="features"),
        "other": FeatureSet(net="n", blob="b", root="features2"),
    }
    known = simulated_settings().model_dump()
    prune = {**known["prune"], "reuse_days": 0.3}
    return settings_of(**{**known, "sets": sets, "prune": prune})


@dataclass
class ReuseUniverse(Universe):
    """A seeded world whose images are used again."""

    settings: Settings = field(default_factory=reusing_settings)

    def __post_init__(self) -> None:
        self.hosts = Hosts()
        super().__post_init__()
        self.scheduler.add("web", self._change_images)
        self.scheduler.add("loss", self._lose)

    def _laws(self) -> Laws:
        return ReuseLaws(self.bucket, self.lake, self.settings, lambda: self.scheduler.running, self.hosts)

    def _serve(self, clock: Clock, fingerprint: str) -> StubServed:
        served = super()._serve(clock, fingerprint)
        served.hosts, served.salt = self.hosts, salt_of(fingerprint)
        return served

    def change_source(self) -> None:
        """A file with images that came before, in whatever order."""
        name = f"refs/{self.random.choice('ab')}.csv"
        images = [f"http://shop/{KINDS[at % len(KINDS)]}-{at}" for at in range(IMAGES)]
        chosen = self.random.sample(images, self.random.randint(4, IMAGES))
        lines = [f"7,item{url.rpartition('-')[2]},{url}" for url in chosen]
        self.lake.write(name, ("\n".join(lines) + "\n").encode())

    def _change_images(self, proc: Proc) -> None:
        """A host has another image under the same URL."""
        while True:
            self.scheduler.sleep(proc, 100.0 + 800.0 * self.random.random())
            if self.scheduler.faults:
                self.change_image()

    def change_image(self) -> None:
        url = f"http://shop/{self.random.choice(('ok', 'plain'))}-{self.random.randrange(IMAGES)}"
        self.hosts.revisions[url] = self.hosts.revisions.get(url, 0) + 1

    def _lose(self, proc: Proc) -> None:
        """Pages go, and bytes of them change."""
        while True:
            self.scheduler.sleep(proc, 100.0 + 1000.0 * self.random.random())
            pages = [key for key in self.bucket.files if key.startswith(KEYS.reuse)]
            if not (self.scheduler.faults and pages):
                continue
            key = self.random.choice(pages)
            content, modified, serial = self.bucket.files[key]
            if self.random.random() < 0.5:
                del self.bucket.files[key]
            else:
                at = len(content) - 1 - self.random.choice((self.random.randrange(len(content)), 0, 1, 2, 3))
                torn = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
                self.bucket.files[key] = (torn, modified, serial)

    # --- a run ---

    def run(self, steps: int) -> None:
        """As every schedule; then the same images once more, of which one has changed.  Raises Violation."""
        super().run(steps)
        assert isinstance(self.laws, ReuseLaws)
        for _ in range(2):
            self.hand.at += 60.0
            self.change_image()
            self.lake.write("refs/a.csv", self._all_good().encode())
            self._come_to_rest(steps)
        self.laws.check_at_rest()

    def _all_good(self) -> str:
        lines = (f"7,item{at},http://shop/{kind}-{at}" for at in range(IMAGES) for kind in ("ok", "plain"))
        return "\n".join(lines) + "\n"
