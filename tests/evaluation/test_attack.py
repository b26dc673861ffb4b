"""The evaluators under random attack: ties, crowds, regions to ignore, nothing at all, boxes without area.

``python -m tools.fuzz_metrics`` runs many more of these scenes.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from support import attack
from support.attack import ATTACKS

#: the same ones every time, so that a failure is not of today alone
MODERATE = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_figures_are_the_oracles(name):
    check, scenes = ATTACKS[name]
    MODERATE(given(scenes)(lambda scene: check(scene) and None))()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_false_figure_is_seen(name, monkeypatch):
    """The attack itself: a figure that is off by a millionth of a percent fails."""
    check, scenes = ATTACKS[name]
    agree = attack.agree
    monkeypatch.setattr(attack, "agree", lambda ours, theirs: agree(np.asarray(ours) + 1e-6, theirs))
    with pytest.raises(AssertionError):
        settings(MODERATE, phases=[Phase.generate])(given(scenes)(lambda scene: check(scene) and None))()
