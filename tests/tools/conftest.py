"""A measurement of speed that measures next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tools.timed.bench import Bench
    from tools.timed.extent import Extent


@pytest.fixture
def tiny() -> Extent:
    """All parts, hardly any of each."""
    from support.worlds import LIGHT

    from tools.timed.extent import Extent

    return Extent(
        turns=2,
        warm_up=1,
        detectors=("gfl",),
        methods=("pgd", "fgd", "crosskd"),
        others=False,
        batches=2,
        growth={"objects": (1, 4, 16), "images": (1, 2, 3), "side": (64, 96, 128), "levels": (3, 4, 6)},
        usual={"objects": 3, "images": 1, "side": 64, "levels": 5},
        compiling=0.0,
        side_steps=1,
        starts=2,
        detections=5,
        options=LIGHT,
    )


@pytest.fixture
def echo() -> list[str]:
    """Arguments of a Python that answers every line, as a training does that runs side by side, and needs no torch."""
    return ["-c", "import sys\nfor line in sys.stdin: print('done', flush=True)"]


@pytest.fixture
def bench(tiny, tiny_data, tmp_path, monkeypatch) -> Bench:
    """GFL on a dozen images, in an empty folder."""
    from tools.timed.bench import Bench, begin

    monkeypatch.chdir(tmp_path)
    begin()
    return Bench("gfl", tiny_data, tiny)
