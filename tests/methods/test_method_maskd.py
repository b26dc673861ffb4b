"""MasKD mask by mask, what its masks see and weigh, and what takes gradient."""

from __future__ import annotations

import pytest
import torch
from support.golden import CLOSE
from support.oracles import maskd as oracle
from support.slopes import assert_slopes
from support.steps import context, step

from pgd.checkpoint import CheckpointError
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.maskd import TOKENS, Masks, frozen, masked_distance, overlap
from pgd.scaling import FULL, Size, published_settings


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def state_of(module: torch.nn.Module) -> dict:
    return {name: double(value) for name, value in module.state_dict().items()}


def stirred(masks: Masks) -> Masks:
    """Masks that differ from a half, with shares that differ from a sixth."""
    torch.nn.init.normal_(masks.tokens)
    torch.nn.init.normal_(masks.shares[2].bias)
    return masks


@pytest.fixture
def learned(tmp_path):
    """A file of the first stage for the pairs of :mod:`support.steps`, and what is in it."""
    torch.manual_seed(3)
    levels = torch.nn.ModuleList(stirred(Masks(8)) for _ in range(2))
    torch.save({"state_dict": levels.state_dict()}, tmp_path / "masks.pth")
    return str(tmp_path / "masks.pth"), levels


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize(("seed", "width"), [(0, 8), (1, 5)])
def test_method_by_mask(learned, seed, width, warmup):
    torch.manual_seed(seed)
    ctx = context(student_channels=width)
    method, given = build_method("maskd", ctx, weight=3.0, warmup=warmup, tokens=learned[0]), step(seed=seed, ctx=ctx)
    levels = list(zip(method.adapters, learned[1], given.student.neck, given.teacher.neck, strict=True))
    for customised in (warmup == 0, True):
        expected = 0.0
        for adapt, masks, student, teacher in levels:
            own = double(adapt(student))
            expected += oracle.distance(own, double(teacher), state_of(masks), own if customised else None)
        assert method(given)["loss_maskd"].item() == pytest.approx(3 * expected, rel=1e-4)


def test_what_the_teacher_sees_through_its_masks():
    torch.manual_seed(0)
    masks, features = stirred(Masks(8)), torch.randn(2, 8, 3, 4)
    seen, met = masks(features)
    images, p = double(features), state_of(masks)
    torch.testing.assert_close(
        seen.double(), torch.stack([torch.from_numpy(oracle.seen(i, p)) for i in images]), rtol=1e-4, atol=1e-5
    )
    assert met.item() == pytest.approx(oracle.overlap([oracle.masks(i, p) for i in images]), rel=1e-5)


def test_only_the_student_takes_gradient(learned):
    """Its own masks do not, though they hang on it; masks and teacher do not at all."""
    method, given = build_method("maskd", context(), weight=1.0, warmup=0, tokens=learned[0]), step()
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"adapters"}
    method.adapters = torch.nn.ModuleList(torch.nn.Identity() for _ in method.adapters)
    (student, other), teachers = given.student.neck, given.teacher.neck
    (p, p_other), (teacher, teacher_other) = map(state_of, learned[1]), map(double, teachers)
    still, rest = double(student), oracle.distance(double(other), teacher_other, p_other, double(other))

    def value(arrays) -> float:
        return oracle.distance(arrays[0], teacher, p, still) + rest

    assert_slopes(method(given)["loss_maskd"], (student,), value)
    method(given)["loss_maskd"].backward()
    assert all(features.grad is None for features in teachers)


def test_raw_boxes_are_compared_where_they_are_asked_for():
    given = step()
    given.student.outputs, given.teacher.outputs = ([None, torch.randn(2, 2, 4, 3, 3).unbind(0)] for _ in range(2))
    method = build_method("maskd", context(), weight=7.0, boxes=1 / 7)
    assert method.needs == {"neck", "predictions"}
    expected = sum(
        (s - t).abs().mean() for s, t in zip(given.student.outputs[1], given.teacher.outputs[1], strict=True)
    )
    torch.testing.assert_close(method(given)["loss_maskd_boxes"], expected, **CLOSE)
    assert build_method("maskd", context()).needs == {"neck"}


def test_whole_masks_give_the_mean_square():
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    masks, weights = torch.ones(2, TOKENS, 12), torch.rand(2, TOKENS).softmax(dim=1)
    found = masked_distance(student, teacher, masks, weights)
    torch.testing.assert_close(found, (student - teacher).square().mean(), **CLOSE)
    torch.testing.assert_close(masked_distance(student, teacher, masks / 2, weights), found / 2, **CLOSE)


def test_a_mask_without_area_counts_nothing():
    student = torch.randn(1, 5, 3, 4, requires_grad=True)
    found = masked_distance(student, torch.randn(1, 5, 3, 4), torch.zeros(1, TOKENS, 12), torch.ones(1, TOKENS))
    found.backward()
    assert found.item() == 0
    assert bool(student.grad.isfinite().all())


def test_overlap_is_from_nothing_to_one():
    assert overlap(torch.eye(4)[None]).item() == pytest.approx(0, abs=1e-6)
    assert overlap(torch.rand(1, 1, 9).expand(2, 6, 9)).item() == pytest.approx(1)


def test_what_is_frozen_keeps_its_names_and_values():
    torch.manual_seed(0)
    masks, features = Masks(8), torch.randn(2, 8, 3, 4)
    before, seen = {name: value.clone() for name, value in masks.state_dict().items()}, masks(features)[0].detach()
    assert not list(frozen(masks).parameters())
    assert masks.state_dict().keys() == before.keys()
    torch.testing.assert_close(masks(features)[0], seen, **CLOSE)


def test_the_record_names_the_masks_and_not_their_place(learned):
    method = build_method("maskd", context(), tokens=learned[0])
    assert len(method.effective_settings["tokens"]) == 16
    assert build_method("maskd", context()).effective_settings["tokens"] == "random"


def test_a_file_that_is_missing_or_of_another_teacher_is_refused(learned, tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such checkpoint; check the path, or run the stage"):
        build_method("maskd", context(), tokens=str(tmp_path / "gone.pth"))
    for other in (context(teacher_channels=12), context(num_levels=1)):
        with pytest.raises(CheckpointError, match=r"masks\.pth: does not fit the masks of this teacher .*; give a"):
            build_method("maskd", other, tokens=learned[0])


def test_settings_by_detector_and_size():
    small = Size(channels=32, positions=533, cells=4, blocks=2, warmup=40)
    assert published_settings("maskd", "fcos", FULL) == {"weight": 10.0, "warmup": 5000, "boxes": 0.0}
    assert published_settings("maskd", "retinanet", small) == {"weight": 7.0, "warmup": 560, "boxes": 1 / 7}
    with pytest.raises(MethodError, match="maskd: warmup -1 is a number of iterations: give 0 or more"):
        build_method("maskd", context(), warmup=-1)
