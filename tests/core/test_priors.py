"""Remembered anchors are those that the generator would have made, and no training writes into them."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import TASK_UTILS

from pgd.priors import remember_priors

ANCHORS = {
    "type": "AnchorGenerator",
    "ratios": [1.0],
    "octave_base_scale": 4,
    "scales_per_octave": 1,
    "strides": [8, 16],
}
POINTS = {"type": "MlvlPointGenerator", "strides": [8, 16]}


class Head:
    """What has a generator."""

    def __init__(self, config: dict) -> None:
        self.prior_generator = TASK_UTILS.build(config)


@pytest.mark.parametrize("config", [ANCHORS, POINTS], ids=["anchors", "points"])
def test_the_same_priors(config):
    plain, remembered = Head(config), Head(config)
    remember_priors(remembered)
    for sizes in ([(4, 6), (2, 3)], [torch.Size((5, 5)), torch.Size((3, 3))], [(4, 6), (2, 3)]):
        expected = plain.prior_generator.grid_priors(sizes, device="cpu")
        found = remembered.prior_generator.grid_priors(sizes, device="cpu")
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        flags = [h.prior_generator.valid_flags(sizes, (30, 40), device="cpu") for h in (plain, remembered)]
        assert all(torch.equal(a, b) for a, b in zip(*flags, strict=True))


def test_they_are_made_once():
    head = Head(ANCHORS)
    remember_priors(head)
    first, again = (head.prior_generator.grid_priors([(4, 4), (2, 2)], device="cpu") for _ in range(2))
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True]
    first.clear()
    assert len(head.prior_generator.grid_priors([(4, 4), (2, 2)], device="cpu")) == 2
