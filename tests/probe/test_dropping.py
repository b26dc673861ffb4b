"""Which positions are kept, silenced and flattened: by hand and by loops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.detectors import QUIET
from support.flat import quality
from support.steps import grid
from torch.testing import assert_close

from benchmark.probe.analysis import (
    by_level,
    flattened,
    marked,
    random_cost,
    ranks,
    relative_distance,
    silenced,
    wanted,
)
from benchmark.probe.dropping import Chosen, Options, choose
from pgd.dense import Grid
from pgd.maths.regions import (
    Objects,
    Pairs,
    inside,
    inside_pairs,
    top_fraction,
)

pytestmark = QUIET
OPTIONS = Options(percents=(1.0, 10.0, 40.0, 100.0), seeds=(0, 1))


def test_ranks_by_hand_and_by_loops():
    cost, box = torch.tensor([3.0, 1, 2, 2, 5, 2]), torch.tensor([0, 0, 2, 2, 2, 0])
    assert ranks(cost, box).tolist() == [2, 0, 0, 1, 2, 1]
    g = torch.Generator().manual_seed(0)
    cost, box = torch.randint(20, (300,), generator=g).float(), torch.randint(9, (300,), generator=g)
    keys = list(zip(box.tolist(), cost.tolist(), range(300), strict=True))
    expected = [sum(k[0] == key[0] and k < key for k in keys) for key in keys]
    assert ranks(cost, box).tolist() == expected
    assert ranks(torch.zeros(0), torch.zeros(0, dtype=torch.long)).tolist() == []


def test_wanted_is_rounded_up_and_at_least_one():
    counts = torch.tensor([1, 25, 100, 1000])
    assert wanted(counts, [0.005, 0.01, 0.1, 0.6, 1.0]).tolist() == [
        [1, 1, 1, 5],
        [1, 1, 1, 10],
        [1, 3, 10, 100],
        [1, 15, 60, 600],
        [1, 25, 100, 1000],
    ]


def test_top_is_the_top_fraction_of_the_library():
    positions, g = grid(1), torch.Generator().manual_seed(0)
    total = len(positions.centers)
    scores, boxes = torch.rand(1, total, 3, generator=g) + 0.01, positions.priors + torch.rand(total, 4, generator=g)
    gt, labels = torch.tensor([[4.0, 4.0, 44.0, 40.0], [30.0, 20.0, 60.0, 46.0]]), torch.tensor([0, 2])
    view = SimpleNamespace(grid=positions, scores=scores, boxes=boxes[None])
    chosen = choose(view, 0, Objects(gt, labels), Options(seeds=()), 0)
    q = quality(scores[0], boxes, positions.centers, gt, labels, 0.8)
    assert torch.equal(q > 0, inside(positions.centers, gt))
    assert torch.equal(chosen.counts, (q > 0).sum(dim=0))
    for kept, fraction in zip(chosen.kept, Options().fractions, strict=False):
        assert torch.equal(kept, top_fraction(q, fraction).any(dim=1))


def by_hand(scores: dict[int, float], gt: list, labels: list, options: Options) -> Chosen:
    """What is kept where every prediction is an object's own box and its class has these scores."""
    positions = grid(1)
    probability = torch.full((1, len(positions.centers), 3), 0.01)
    for position, score in scores.items():
        probability[0, position, labels[0]] = score
    boxes = torch.tensor(gt[0]).expand(1, len(positions.centers), 4)
    view = SimpleNamespace(grid=positions, scores=probability, boxes=boxes)
    return choose(view, 0, Objects(torch.tensor(gt), torch.tensor(labels)), options, 0)


def kept_of(chosen: Chosen, options: Options) -> dict:
    """Positions by selection and percentage."""
    names = [(selection, percent) for selection, _ in options.rankings for percent in options.percents]
    return {name: mask.nonzero().flatten().tolist() for name, mask in zip(names, chosen.kept, strict=True)}


def test_what_is_kept_by_hand():
    """A box of 2 x 2 fine positions and a coarse one in its corner."""
    options = Options(percents=(1.0, 40.0, 61.0, 100.0), seeds=())
    chosen = by_hand({9: 0.9, 10: 0.2, 17: 0.5, 18: 0.1, 48: 0.7}, [[6.0, 6, 22, 22]], [1], options)
    assert chosen.counts.tolist() == [5]
    assert chosen.in_box.nonzero().flatten().tolist() == [9, 10, 17, 18, 48]
    everything = [9, 10, 17, 18, 48]
    assert kept_of(chosen, options) == {
        **{("top", 1.0): [9], ("top", 40.0): [9, 48], ("top", 61.0): [9, 10, 17, 48], ("top", 100.0): everything},
        # 18 and 48 are equally far from the centre: the finer comes first
        **{("central", 1.0): [9], ("central", 40.0): [9, 10], ("central", 61.0): [9, 10, 17, 18]},
        **{("central", 100.0): everything, ("worst", 1.0): [18], ("worst", 40.0): [10, 18]},
        **{("worst", 61.0): [10, 17, 18, 48], ("worst", 100.0): everything},
    }


def test_what_any_box_keeps_is_kept():
    """The second box holds 10 alone, the worst of the first."""
    options = Options(percents=(1.0, 60.0), seeds=())
    chosen = by_hand(
        {9: 0.9, 10: 0.1, 17: 0.5, 18: 0.3, 48: 0.7}, [[6.0, 6, 22, 22], [18, 10, 22, 14]], [1, 1], options
    )
    assert chosen.counts.tolist() == [5, 1]
    kept = kept_of(chosen, options)
    assert kept["top", 1.0] == [9, 10]
    assert kept["top", 60.0] == [9, 10, 17, 48]
    assert kept["worst", 1.0] == [10]


def test_padding_is_in_no_box():
    positions = grid(1)
    positions.valid[0, 9] = False
    shape = (1, len(positions.centers))
    view = SimpleNamespace(grid=positions, scores=torch.full((*shape, 3), 0.5), boxes=torch.rand(*shape, 4))
    chosen = choose(view, 0, Objects(torch.tensor([[6.0, 6, 22, 22]]), torch.tensor([1])), OPTIONS, 0)
    assert chosen.counts.tolist() == [4]
    assert not chosen.in_box[9]
    assert not chosen.kept[:, 9].any()


def test_no_boxes_and_boxes_between_positions():
    for gt in (torch.zeros(0, 4), torch.tensor([[13.0, 13, 15, 15]])):
        view = SimpleNamespace(grid=grid(1), scores=torch.rand(1, 60, 3), boxes=torch.rand(1, 60, 4))
        chosen = choose(view, 0, Objects(gt, torch.zeros(len(gt), dtype=torch.long)), OPTIONS, 0)
        assert not chosen.kept.any()
        assert not chosen.in_box.any()
        assert chosen.counts.tolist() == [0] * len(gt)


def test_dice_are_those_of_their_seeds():
    pairs = inside_pairs(grid(1).centers, torch.tensor([[2.0, 2, 60, 44], [6.0, 6, 22, 22]]))
    assert torch.equal(random_cost(pairs, 3, 7), random_cost(pairs, 3, 7))
    assert not torch.equal(random_cost(pairs, 3, 7), random_cost(pairs, 4, 7))
    assert not torch.equal(random_cost(pairs, 3, 7), random_cost(pairs, 3, 8))
    chances = torch.stack([ranks(random_cost(pairs, seed, 0), pairs.box) == 0 for seed in range(600)]).float()
    for box in range(2):
        own = pairs.box == box
        # each is the first as often as the others
        assert_close(chances[:, own].mean(dim=0), torch.full((int(own.sum()),), 1 / own.sum()), atol=0.07, rtol=0)


def test_distances_are_relative_to_the_sides():
    centers, gt = torch.tensor([[10.0, 10.0], [30.0, 10.0]]), torch.tensor([[0.0, 0.0, 40.0, 10.0]])
    pairs = Pairs(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert_close(relative_distance(centers, gt, pairs), torch.tensor([0.25**2 + 0.5**2] * 2))


@pytest.fixture
def twofold() -> Grid:
    """Two levels with two predictions a position."""
    positions = grid(1)
    return Grid(positions.centers, positions.strides, positions.sizes, positions.valid, None, per_position=2)


def test_silenced_by_loops(twofold):
    g = torch.Generator().manual_seed(0)
    logits = [torch.randn(1, 2 * 3, *size, generator=g) for size in twofold.sizes]
    dropped = torch.rand(4, 120, generator=g) < 0.5
    found = silenced(logits, dropped, twofold)
    index = 0
    for level, own, (height, width) in zip(found, logits, twofold.sizes, strict=True):
        assert level.shape == (4, *own.shape[1:])
        for y in range(height):
            for x in range(width):
                for anchor in range(2):
                    classes = slice(3 * anchor, 3 * anchor + 3)
                    for setting in range(4):
                        here = level[setting, classes, y, x]
                        if dropped[setting, index]:
                            assert not here.sigmoid().any()
                            assert not here.half().sigmoid().any()
                        else:
                            assert torch.equal(here, own[0, classes, y, x])
                    index += 1
    assert index == 120


def test_flattened_by_loops(twofold):
    g = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 4, *size, generator=g) for size in twofold.sizes]
    dropped, valid = torch.rand(3, 60, generator=g) < 0.5, torch.rand(60, generator=g) < 0.8
    index, found = 0, flattened(features, dropped, valid, twofold)
    for level, own, (height, width) in zip(found, features, twofold.sizes, strict=True):
        cells = valid[index : index + height * width].nonzero().flatten().tolist()
        mean = sum(own[0, :, cell // width, cell % width] for cell in cells) / len(cells)
        for cell in range(height * width):
            y, x = divmod(cell, width)
            for setting in range(3):
                assert_close(level[setting, :, y, x], mean if dropped[setting, index] else own[0, :, y, x])
            index += 1


def test_levels_are_counted(twofold):
    kept = torch.zeros(2, 120, dtype=torch.bool)
    kept[0, [0, 95, 96, 119]] = kept[1, 96] = True
    assert by_level(kept, twofold).tolist() == [[2, 2], [0, 1]]
    pairs = Pairs(torch.tensor([3, 5, 3]), torch.tensor([0, 0, 1]))
    assert marked(torch.tensor([[True, False, True]]), pairs, 120).nonzero().tolist() == [[0, 3]]
