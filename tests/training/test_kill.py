"""A training that SIGKILL ends at random moments: a few of the kills that ``tests/stress/kill.py`` makes."""

from __future__ import annotations

import pytest
from stress.kill import differences, stress

from pgd.checkpoint import load_state

pytestmark = pytest.mark.long


def test_killed_at_random_moments(tmp_path):
    (line,) = stress(tmp_path, ["fgd"], kills=2, iterations=8)
    assert line.startswith("fgd: 2 kills (")
    assert line.endswith("all the same to the bit")
    weights = load_state(tmp_path / "work" / "runs" / "fgd-0" / "weights.pth")
    found = {"weights": weights, "curve": "", "accuracy": {}}
    assert differences(found, found) == []
    bias = weights["bbox_head.gfl_cls.bias"]
    other = {**weights, "bbox_head.gfl_cls.bias": bias.nextafter(bias + 1)}
    assert differences({**found, "weights": other, "curve": "x"}, found) == ["weights (1 entries)", "curve"]
