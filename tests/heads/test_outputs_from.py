"""Running a head on from features behind a block of its towers, for every served head."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support.detectors import ALL, BOXES, LABELS, QUIET, SIZE, detector, images, objects, sample
from torch import Tensor, nn
from torch.testing import assert_close

from pgd.dense import HeadReader, View, reader_of
from pgd.methods import TowerPlace
from pgd.tape import Tape

pytestmark = [QUIET, pytest.mark.slow]
#: blocks of the mini detectors' towers
BLOCKS = range(2)
QUALITY = {"fcos": "conv_centerness", "autoassign": "conv_centerness", "atss": "atss_centerness", "ddod": "atss_iou"}


@torch.no_grad()
def recorded(model: nn.Module, block: int, activated: bool = True, count: int = 2) -> Tape:
    """What passes through a detector, with the features of one block of its towers."""
    tape = Tape(model, TowerPlace(block, activated))
    with tape.recording():
        model.bbox_head(model.extract_feat(images(count)))
    return tape


def flat(outputs: Sequence) -> list[Tensor]:
    return [level for branch in outputs for level in branch]


def copies(maps: list[Tensor]) -> list[Tensor]:
    return [m.clone().requires_grad_() for m in maps]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_own_features_give_own_outputs(name, block, train):
    model = detector(name).train(train)
    tape = recorded(model, block)
    assert len(tape.towers[0]) == len(tape.neck)
    assert len(tape.reader.towers[0]) == len(BLOCKS)
    with torch.no_grad():
        again = tape.reader.outputs_from(tape.neck, *tape.towers, block=block)
    assert len(again) == len(tape.outputs)
    for found, expected in zip(flat(again), flat(tape.outputs), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ALL)
def test_features_before_the_activation_need_it(name):
    model = detector(name).eval()
    tape = recorded(model, block=0, activated=False)
    assert min(m.min() for m in tape.towers[0]) < 0
    relu = [[m.relu() for m in tower] for tower in tape.towers]
    with torch.no_grad():
        again = tape.reader.outputs_from(tape.neck, *relu, block=0)
    for found, expected in zip(flat(again), flat(tape.outputs), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_reach_the_given_features_and_nothing_else(name, block):
    model = detector(name).eval().requires_grad_(False)
    tape = recorded(model, block)
    cls_tower, reg_tower = (copies(tower) for tower in tape.towers)
    outputs = tape.reader.outputs_from(tape.neck, cls_tower, reg_tower, block=block)
    scores, boxes = sum(level.sum() for level in outputs[0]), sum(level.sum() for level in outputs[1])
    for leaf in torch.autograd.grad(scores, cls_tower, retain_graph=True):
        assert bool(leaf.isfinite().all())
        assert bool(leaf.any())
    for leaf in torch.autograd.grad(boxes, reg_tower, retain_graph=True):
        assert bool(leaf.isfinite().all())
    assert any(bool(leaf.any()) for leaf in torch.autograd.grad(boxes, reg_tower, retain_graph=True))
    assert not any(level.requires_grad for level in tape.neck)
    assert all(p.grad is None for p in model.parameters())
    # only VFNet's class scores look at its boxes
    crossed = torch.autograd.grad(scores, reg_tower, allow_unused=True)
    assert any(leaf is not None for leaf in crossed) == (name == "vfnet")


@pytest.mark.parametrize("name", ALL)
def test_other_features_change_their_own_branch(name):
    model = detector(name).eval()
    tape = recorded(model, block=1)
    cls_tower, reg_tower = tape.towers
    with torch.no_grad():
        other = tape.reader.outputs_from(tape.neck, [m + 1 for m in cls_tower], reg_tower, block=1)
    for branch, (found, expected) in enumerate(zip(other, tape.outputs, strict=True)):
        own_tower = branch == 0 or (name == "fcos" and branch == 2 and not model.bbox_head.centerness_on_reg)
        assert all(torch.equal(*both) for both in zip(found, expected, strict=True)) != own_tower


def state(reader: HeadReader) -> tuple:
    """The modules of a head by name, by identity, and in order; and their modes."""
    return tuple((name, id(module), module.training) for name, module in reader.head.named_modules())


@pytest.mark.parametrize("name", ALL)
def test_the_head_stays_as_it_was(name):
    model = detector(name)
    tape = recorded(model, block=0)
    before, weights = state(tape.reader), {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        tape.reader.outputs_from(tape.neck, *tape.towers, block=1)
    assert state(tape.reader) == before
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    again = recorded(model, block=0)
    assert all(torch.equal(*both) for both in zip(flat(again.outputs), flat(tape.outputs), strict=True))


@pytest.mark.parametrize("name", ALL)
def test_the_head_stays_as_it_was_when_it_raises(name):
    model = detector(name).eval()
    tape = recorded(model, block=0)
    before = state(tape.reader)
    too_wide = [torch.cat((m, m), dim=1) for m in tape.towers[1]]
    for block in BLOCKS:
        with pytest.raises(RuntimeError):
            tape.reader.outputs_from(tape.neck, tape.towers[0], too_wide, block=block)
        assert state(tape.reader) == before
    again = recorded(model, block=0)
    assert all(torch.equal(*both) for both in zip(flat(again.outputs), flat(tape.outputs), strict=True))


# ------------------------------------------------------------------------------------------ the third branch


@pytest.mark.parametrize("name", ALL)
def test_quality_logits_are_those_of_the_third_branch(name):
    """As the layer gave them, position by position."""
    model, seen = detector(name).eval(), []
    if name in QUALITY:
        layer = model.bbox_head.get_submodule(QUALITY[name])
        layer.register_forward_hook(lambda module, args, out: seen.append(out))
    tape = recorded(model, block=0)
    grid = tape.reader.grid([f.shape[-2:] for f in tape.neck], [{"pad_shape": SIZE}] * 2, torch.device("cpu"))
    logits = View(tape.reader, grid, outputs=tape.outputs).quality_logits
    if name not in QUALITY:
        assert logits is None
        assert not seen
        return
    assert logits.shape == (2, len(grid.centers))
    assert logits.std() > 0
    expected = [[cell for level in seen for row in level[image, 0].tolist() for cell in row] for image in range(2)]
    assert logits.tolist() == expected


@pytest.mark.parametrize("name", ALL)
def test_centerness_targets(name):
    """FCOS's, of every positive in the box that it learns; the other heads' losses do without."""
    model = detector(name).train()
    tape = Tape(model)
    crowd, classes = objects(40)
    samples = [sample(BOXES[0], LABELS[0]), sample(crowd.tolist(), classes.tolist()), sample([], [])]
    if name == "autoassign":
        assert reader_of(model.bbox_head).centerness_targets((), 3) is None
        return
    with tape.recording(targets=True):
        model.loss(images(3), samples)
    found = tape.reader.centerness_targets(tape.targets, 3)
    if name != "fcos":
        assert found is None
        return
    labels, _ = tape.reader.assignment(tape.targets, 3)
    assert found.shape == labels.shape
    assert not found[2].any()
    assert torch.equal(found > 0, labels < model.bbox_head.num_classes)
    # by mmdet's own function, level by level as the head has them
    level_labels, level_boxes = (torch.cat(part) for part in tape.targets)
    positive = level_labels < model.bbox_head.num_classes
    expected = model.bbox_head.centerness_target(level_boxes[positive])
    assert len(expected) > 20
    assert_close(found[found > 0].sort().values, expected.sort().values)
    # by hand: the distances to the four sides
    point = (0.5 + torch.arange(2)) * 8
    left, top, right, bottom = point[0] - 2, point[1] - 4, 20 - point[0], 30 - point[1]
    targets = [torch.tensor([1, 5])], [torch.stack([torch.stack([left, top, right, bottom]), torch.full((4,), -3.0)])]
    by_hand = ((2 / 16) * (8 / 18)) ** 0.5
    assert_close(tape.reader.centerness_targets(targets, 1), torch.tensor([[by_hand, 0.0]]))
