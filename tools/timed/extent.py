"""How much tools/speed.py measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Extent:
    """What is measured, and how often."""

    #: of the steps that targets are set for; all else takes a part of them (:meth:`share`)
    turns: int = 20
    #: in which every variant runs before any is timed
    warm_up: int = 2
    detectors: tuple[str, ...] = ("gfl", "atss")
    #: methods that all turns are spent on, with every detector
    methods: tuple[str, ...] = ("pgd", "fgd", "crosskd", "fitnet", "ld", "pgd_released")
    #: whether the first detector has steps of all other methods too
    others: bool = True
    #: batches of the training that steps take by turns
    batches: int = 4
    #: values of what PGD's cost is measured against, three of each at least; of boxes more than images have, where what
    #: grows outweighs what does not
    growth: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: {
            "objects": (1, 3, 10, 30, 100, 300, 1000, 3000),
            "images": (1, 2, 4, 8, 16),
            "side": (96, 160, 256, 384, 512),
            "levels": (3, 4, 5, 6),
        }
    )
    #: values of the others while one changes
    usual: Mapping[str, int] = field(default_factory=lambda: {"objects": 7, "images": 4, "side": 160, "levels": 5})
    #: seconds after which torch.compile is given up; 0: it is not tried
    compiling: float = 150.0
    #: steps a turn of each of two trainings that run side by side
    side_steps: int = 3
    #: of every process whose start-up is timed
    starts: int = 3
    #: detections an image for the evaluation
    detections: int = 60
    #: overrides of the detectors' configs, for tests
    options: Mapping[str, Any] = field(default_factory=dict)

    def share(self, part: float) -> int:
        """So much of the turns, two at least: there is no spread of one."""
        return max(2, round(part * self.turns))


FULL = Extent()
#: ends in a minute or two; its figures are coarse
QUICK = Extent(
    turns=3,
    warm_up=1,
    detectors=("gfl",),
    methods=("pgd", "fgd", "crosskd"),
    others=False,
    growth={"objects": (1, 300, 1000, 3000), "images": (1, 2, 4), "side": (96, 160, 256), "levels": (3, 4, 5)},
    compiling=0.0,
    side_steps=2,
    starts=2,
)
