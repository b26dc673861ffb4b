"""TinyKD by way of pixels and patches, its masks, its patches and its warm-up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.golden import CLOSE
from support.oracles import tinykd as oracle
from support.oracles.mgd import convolution
from support.slopes import assert_slopes
from support.steps import IMAGE, SIZES, context, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.tinykd import PatchAttention, from_patches, masked_distance, object_mask, to_patches
from pgd.scaling import FULL, Size, published_settings


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def scattered(seed: int, images: int = 3, ctx=None):
    """A step with small boxes and such that leave the image; the last image has none."""
    given, g = step(images, seed, ctx), torch.Generator().manual_seed(seed)
    given.image_sizes = [(48, 64), (30, 64), (48, 41)][:images]
    for image in range(images - 1):
        side = 2 * 20 ** torch.rand(4, 2, generator=g)
        corner = torch.rand(4, 2, generator=g) * torch.tensor([64.0, 48.0]) - side / 2
        given.gt_boxes[image] = torch.cat((corner, corner + side), dim=1)
    return given


def stirred(method):
    """Attentions that matter."""
    for relation in method.relations:
        for side in (relation.student, relation.teacher):
            for p in side.parameters():
                torch.nn.init.normal_(p, std=0.1)
    return method


def parameters_of(module: torch.nn.Module) -> dict:
    return {name: double(value) for name, value in module.named_parameters()}


def masks_of(given, level: int):
    images = [oracle.masks(boxes.tolist(), IMAGE, SIZES[level]) for boxes in given.gt_boxes]
    return [np.stack(both) for both in zip(*images, strict=True)]


def expected_relation(relation, student, teacher, tau):
    related = oracle.attention(student, parameters_of(relation.student), tau)
    adapter = relation.adapter
    return (
        convolution(related, double(adapter.weight), double(adapter.bias)),
        oracle.attention(teacher, parameters_of(relation.teacher), tau),
    )


@pytest.mark.parametrize(("seed", "width"), [(0, 8), (1, 8), (2, 5)])
def test_method_by_loops(seed, width):
    torch.manual_seed(seed)
    ctx = context(student_channels=width)
    settings = {"weight": 3.0, "weight_feature": 0.5, "weight_relation": 2.0, "tau": 0.2, "warmup": 0}
    method, given = stirred(build_method("tinykd", ctx, **settings)), scattered(seed, ctx=ctx)
    feature = relation = 0.0
    for level, (s, t) in enumerate(zip(given.student.neck, given.teacher.neck, strict=True)):
        masks = masks_of(given, level)
        feature += oracle.distance(double(method.adapters[level](s)), double(t), *masks)
        relation += oracle.distance(*expected_relation(method.relations[level], double(s), double(t), 0.2), *masks)
    terms = {name: value.item() for name, value in method(given).items()}
    expected = {"loss_tinykd_feature": 1.5 * feature, "loss_tinykd_relation": 6 * relation}
    assert terms == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [(6, 8), (3, 4), (5, 7), (48, 64)])
def test_mask_by_pixels(size):
    for seed in range(3):
        for boxes in scattered(seed).gt_boxes:
            foreground, _ = oracle.masks(boxes.tolist(), IMAGE, size)
            torch.testing.assert_close(object_mask(boxes, IMAGE, size).double(), torch.from_numpy(foreground), **CLOSE)


def test_mask_by_hand():
    # 4 x 4 pixels a cell; 2 x 2 and 8 x 4 pixels, the second over the border of two cells and of the image
    boxes = torch.tensor([[1.0, 1.0, 2.0, 2.0], [2.5, -1.0, 8.5, 1.5]])
    mask = object_mask(boxes, (8, 12), (2, 3))
    # from 2 to 9 and from -1 to 2
    small, large = 96 / 4, 96 / 32
    expected = torch.tensor([[small, large, large], [0, 0, 0]])
    torch.testing.assert_close(mask, expected / expected.sum())


def test_masks_share_out_the_weight_of_an_image():
    given = scattered(0)
    for mask in build_method("tinykd", context()).masks(given):
        torch.testing.assert_close(mask.sum(dim=(1, 2)), torch.tensor([1.5, 1.5, 0.5]))


@pytest.mark.parametrize("size", [(3, 4), (16, 16), (17, 35), (20, 16)])
def test_patches_there_and_back(size):
    features = torch.randn(2, 3, *size)
    patches = to_patches(features)
    assert patches.shape == (2, -(-size[0] // 16), -(-size[1] // 16), 256, 3)
    assert torch.equal(from_patches(patches, *size), features)
    assert torch.equal(patches[:, 0, 0].unflatten(1, (16, 16))[:, 0, : size[1], :].mT[..., :3], features[:, :, 0, :3])


@pytest.mark.parametrize("size", [(5, 7), (17, 20)])
def test_attention_by_loops(size):
    torch.manual_seed(0)
    block = PatchAttention(4, 0.3)
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.4)
    features = torch.randn(1, 4, *size)
    expected = torch.from_numpy(oracle.attention(double(features), parameters_of(block), 0.3))
    torch.testing.assert_close(block(features).double(), expected, rtol=1e-4, atol=1e-5)


def test_patches_do_not_see_each_other():
    block = PatchAttention(4, 0.3)
    torch.nn.init.normal_(block.out.weight)
    features = torch.randn(1, 4, 20, 40)
    other = features.clone()
    other[..., 16:, :] = other[..., 32:] = 0
    torch.testing.assert_close(block(other)[..., :16, :32], block(features)[..., :16, :32], **CLOSE)


def test_attention_starts_as_the_identity_and_does_not_know_places():
    block, features = PatchAttention(4, 0.3), torch.randn(2, 4, 9, 11)
    assert torch.equal(block(features), features)
    torch.nn.init.normal_(block.out.weight)
    order = torch.randperm(9)
    torch.testing.assert_close(block(features[:, :, order]), block(features)[:, :, order], **CLOSE)


def test_gradients_of_student_and_what_is_trained():
    torch.manual_seed(1)
    ctx = context(student_channels=3, teacher_channels=3)
    method, given = stirred(build_method("tinykd", ctx, tau=0.2, warmup=0)), scattered(1, 2, ctx)
    student, teacher = given.student.neck[1], double(given.teacher.neck[1])
    adapter, relation = method.adapters[1], method.relations[1]
    named = {f"adapter.{name}": p for name, p in adapter.named_parameters()}
    named |= {f"relation.{name}": p for name, p in relation.named_parameters()}
    foreground, background = masks_of(given, 1)

    def value(arrays) -> float:
        own = dict(zip(named, arrays[1:], strict=True))

        def part(prefix: str) -> dict:
            return {name.removeprefix(prefix): v for name, v in own.items() if name.startswith(prefix)}

        direct = convolution(arrays[0], own["adapter.weight"], own["adapter.bias"])
        related = oracle.attention(arrays[0], part("relation.student."), 0.2)
        related = convolution(related, own["relation.adapter.weight"], own["relation.adapter.bias"])
        target = oracle.attention(teacher, part("relation.teacher."), 0.2)
        pairs = ((direct, teacher), (related, target))
        return sum(oracle.distance(*pair, foreground, background) for pair in pairs)

    assert_slopes(sum(method(given).values()), (student, *named.values()), value)


def test_images_weigh_the_same_whatever_is_in_them():
    student, teacher = torch.randn(3, 4, 6, 8), torch.randn(3, 4, 6, 8)
    mask = torch.rand(3, 6, 8)
    alone = [masked_distance(s[None], t[None], m[None]) for s, t, m in zip(student, teacher, mask, strict=True)]
    torch.testing.assert_close(masked_distance(student, teacher, mask), sum(alone) / 3)


def test_warmup_is_counted_in_training_and_kept():
    given, method = step(), build_method("tinykd", context(), warmup=4)
    full = build_method("tinykd", context(), warmup=0)
    full.load_state_dict(method.state_dict())
    whole = sum(full(given).values()).item()
    shares = [sum(method(given).values()).item() / whole for _ in range(2)]
    assert shares == pytest.approx([0.25, 0.5], rel=1e-5)
    resumed = build_method("tinykd", context(), warmup=4)
    resumed.load_state_dict(method.state_dict())
    resumed.eval()
    assert sum(resumed(given).values()).item() == pytest.approx(0.5 * whole, rel=1e-5), "not counted in evaluation"
    resumed.train()
    shares = [sum(resumed(given).values()).item() / whole for _ in range(3)]
    assert shares == pytest.approx([0.75, 1.0, 1.0], rel=1e-5)


def test_terms_can_be_left_out():
    given = step()
    feature = build_method("tinykd", context(), weight_relation=0.0)
    assert set(feature(given)) == {"loss_tinykd_feature"}
    assert len(feature.relations) == 0
    relation = build_method("tinykd", context(), weight_feature=0.0)
    assert set(relation(given)) == {"loss_tinykd_relation"}
    assert len(relation.adapters) == 0


def test_images_without_boxes_are_all_background():
    given = step()
    given.gt_boxes = [boxes[:0] for boxes in given.gt_boxes]
    for mask, size in zip(build_method("tinykd", context()).masks(given), SIZES, strict=True):
        torch.testing.assert_close(mask, torch.full_like(mask, 0.5 / (size[0] * size[1])))


def test_only_the_warmup_depends_on_the_size():
    full, small = (
        published_settings("tinykd", "fcos", size)
        for size in (FULL, Size(channels=32, positions=533, cells=4, blocks=2, warmup=40))
    )
    assert small == {**full, "warmup": 80}
    assert full["warmup"] == 1000


@pytest.mark.parametrize(
    ("settings", "message"), [({"tau": 0.0}, "must be above 0"), ({"warmup": -1}, "give 0 or more")]
)
def test_bad_settings(settings, message):
    with pytest.raises(MethodError, match=message):
        build_method("tinykd", context(), **settings)
