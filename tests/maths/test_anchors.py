"""Anchors or squares in their place, and the level of a box."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from support.detectors import QUIET, pair
from support.many_anchors import SHAPES, many
from support.steps import step

from pgd.dense import reader_of
from pgd.maths.anchors import anchors_of, levels_of

pytestmark = QUIET


def test_a_head_with_anchors_gives_its_own():
    for given in (step(), many()):
        assert anchors_of(given.grid, 3.0) is given.grid.priors


def test_point_heads_get_squares_around_their_positions():
    grid = step(anchor=None).grid
    squares = anchors_of(grid, 3.0)
    for square, (x, y), stride in zip(squares.tolist(), grid.centers.tolist(), grid.strides.tolist(), strict=True):
        assert square == [x - 1.5 * stride, y - 1.5 * stride, x + 1.5 * stride, y + 1.5 * stride]
    assert torch.equal(anchors_of(grid), anchors_of(grid, 8.0)), "ATSS's"


def test_one_square_for_each_prediction_of_a_position():
    grid = replace(step(anchor=None).grid, per_position=len(SHAPES))
    squares = anchors_of(grid, 2.0).unflatten(0, (-1, len(SHAPES)))
    assert torch.equal(squares, squares[:, :1].expand_as(squares))
    assert torch.equal((squares[:, 0, :2] + squares[:, 0, 2:]) / 2, grid.centers)


def test_squares_of_a_real_point_head_are_those_of_an_anchor_head():
    """AutoAssign's points lie as ATSS's anchors do, at the corners of the cells."""
    sizes, metas = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)], [{"pad_shape": (96, 128)}]
    grids = {}
    for name in ("atss", "autoassign"):
        reader = reader_of(pair(name, method="fitnet").student.bbox_head)
        grids[name] = reader.grid(sizes, metas, torch.device("cpu"))
    assert grids["autoassign"].priors is None
    side = float((grids["atss"].priors[0, 2] - grids["atss"].priors[0, 0]) / 8)
    torch.testing.assert_close(anchors_of(grids["autoassign"], side), grids["atss"].priors)


def test_levels_as_detectron2_has_them():
    """floor(4 + log2(size / 224)) for levels 3 to 7."""
    sizes = 800 * torch.rand(500, generator=torch.Generator().manual_seed(0)) + 1e-3
    expected = [min(max(math.floor(4 + math.log2(size / 224)), 3), 7) - 3 for size in sizes.tolist()]
    levels = levels_of(sizes, (8, 16, 32, 64, 128))
    assert levels.tolist() == expected
    assert len(set(expected)) == 3


def test_levels_begin_exactly_at_a_power_of_two():
    sizes = torch.tensor([0.0, 111.0, 112.0, 223.9, 224.0, 447.9, 448.0, 1e6])
    assert levels_of(sizes, (8, 16, 32)).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert levels_of(sizes, (8, 16, 32), base=7.0).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    assert levels_of(sizes, (8,)).tolist() == [0] * 8
    assert levels_of(sizes[:0], (8, 16)).tolist() == []
