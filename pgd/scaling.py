"""How published settings are carried over to detectors of another size, so that every method starts on one footing.

A method says by exponents how its settings go with the size of a detector (:attr:`pgd.methods.Method.scaling`), and
:func:`scaled` applies them. A weight of a term that is a sum over channels where the rest of the loss is not goes with
one over the number of channels, and so on; docs/mini-setting.md has the rule in a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgd.methods.base import method_class, settings_of


@dataclass(frozen=True)
class Size:
    """What settings depend on."""

    #: width of neck and towers
    channels: int
    #: positions of an image over all levels
    positions: int
    #: side of the anchors, in cells of their level
    cells: float
    #: convolution blocks of a tower
    blocks: int
    #: iterations of the learning rate's warm-up
    warmup: int


#: 1333 x 800 on five levels of strides 8 to 128; PGD's and most released configurations.
FULL = Size(channels=256, positions=22300, cells=8, blocks=4, warmup=500)


def scaled(settings: Mapping[str, Any], scaling: Mapping[str, Mapping[str, float]], size: Size) -> dict[str, Any]:
    """Settings for a detector of ``size``.

    Args:
        settings: values at full scale.
        scaling: for each setting that depends on the size the exponents of its quantities. Weights grow as
            ``channels`` and ``positions`` shrink; lengths and counts shrink with ``cells``, ``blocks``, ``warmup``.
        size: of the detector.

    Returns:
        The same settings; numbers that change keep two significant digits, whole ones stay whole and at least 1.
    """
    ratios = {
        "channels": FULL.channels / size.channels,
        "positions": FULL.positions / size.positions,
        "cells": size.cells / FULL.cells,
        "blocks": size.blocks / FULL.blocks,
        "warmup": size.warmup / FULL.warmup,
    }
    result = dict(settings)
    for name, exponents in scaling.items():
        value = settings[name]
        factor = 1.0
        for quantity, exponent in exponents.items():
            factor *= ratios[quantity] ** exponent
        result[name] = max(1, round(value * factor)) if isinstance(value, int) else float(f"{value * factor:.2g}")
    return result


def published_settings(method: str, detector: str, size: Size = FULL) -> dict[str, Any]:
    """A method's settings for a detector: as published at full scale, by the rule at another.

    Args:
        method: name in the registry.
        detector: mmdet's type in lower case (``gfl``); one without published settings gets the method's defaults.
        size: of the detector.
    """
    cls = method_class(method)
    defaults = {name: value for name, value in settings_of(method).items() if value is not None}
    return scaled({**defaults, **cls.published.get(detector, {})}, cls.scaling, size)
