"""Which method goes with which detector, and with which settings it can be compared with itself."""

from __future__ import annotations

from typing import Any

from benchmark.experiment.config import MINI
from pgd.methods import METHODS
from pgd.scaling import published_settings
from support.detectors import ALL
from support.marks import long_but

#: (method, detector) -> a word of the sentence that refuses it
REFUSED = {("ld", name): "distributions" for name in ALL if name != "gfl"}
REFUSED |= {(method, "autoassign"): "AutoAssign" for method in ("crosskd", "bckd", "cskd")}
#: settings that make what is drawn at random the same for each image
STILL = {
    "mgd": {"mask_ratio": 0.0},
    "detkds": {"keep": 1.0, "group": 4},
    "icd": {"fakes": 0.0, "jitter": 0.0},
}
METHOD_NAMES = sorted(METHODS.module_dict)
GRID = [(method, name) for method in METHOD_NAMES for name in ALL]
SERVED = [both for both in GRID if both not in REFUSED]
#: the same for `make test`, which takes every method on GFL and PGD on all detectors; the others are marked as long
SERVED_IN_TIERS = long_but(lambda both: both[0] == "pgd" or both[1] == "gfl", SERVED)


def settings_at_once(method: str, name: str) -> dict[str, Any]:
    """Published settings of a detector at mini scale, but no warm-up: the method teaches from the first step."""
    settings = published_settings(method, name, MINI)
    return settings | {"warmup": 0} if "warmup" in settings else settings
