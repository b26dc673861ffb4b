"""ICD against plain numpy, torch's own attention, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.oracles import icd as oracle
from support.steps import IMAGE, SIZES, STRIDES, context, step
from torch import Tensor, nn
from torch.testing import assert_close

from pgd.dense import DistillStep
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.icd import (
    ICD,
    Decoder,
    Instances,
    count_with_fakes,
    descriptors,
    draw_instances,
    level_places,
    value_distance,
)

HEADS = 2


def built(ctx=None, **settings) -> ICD:
    torch.manual_seed(5)
    return build_method("icd", ctx or context(), heads=HEADS, **settings)


def drawn(given: DistillStep, method: ICD, seed: int) -> Instances:
    """What the method draws after this seed."""
    torch.manual_seed(seed)
    return draw_instances(given.gt_boxes, given.gt_labels, given.image_sizes, 3, method.fakes, method.jitter)


def terms_of(method: ICD, given: DistillStep, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return method(given)


def flat(view) -> np.ndarray:
    """Neck features ``[N, P, C]``."""
    return torch.cat([level.flatten(2) for level in view.neck], dim=2).transpose(1, 2).detach().double().numpy()


def expected_terms(method: ICD, given: DistillStep, instances: Instances) -> dict[str, float]:
    """The whole method from features and instances on, instance by instance."""
    w = {key: value.detach().double().numpy() for key, value in method.state_dict().items()}

    def pair(name: str) -> tuple[np.ndarray, np.ndarray | None]:
        return w[f"{name}.weight"], w.get(f"{name}.bias")

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return oracle.normalised(x) * w[f"{name}.weight"] + w[f"{name}.bias"]

    own, theirs = flat(given.student), flat(given.teacher)
    images, cells, channels = theirs.shape
    values = oracle.linear(theirs, *pair("decoder.value"))
    student_values = oracle.linear(own, *pair("student_value"))
    levels = [(*size, stride) for size, stride in zip(SIZES, STRIDES, strict=True)]
    mass = np.zeros((images, HEADS, cells))
    entropies, errors = [], []
    for n in range(images):
        places, inside = oracle.place_embedding(levels, given.image_sizes[n], channels)
        keys = oracle.linear(theirs[n] + oracle.linear(places, *pair("decoder.place")), *pair("decoder.key"))
        for k in range(instances.real.size(1)):
            if not instances.exists[n, k]:
                continue
            box, point = instances.boxes[n, k].double().numpy(), instances.points[n, k].double().numpy()
            described = oracle.descriptor(int(instances.labels[n, k]), list(box), list(point), given.image_sizes[n], 3)
            query = oracle.mlp(np.array(described), [pair(f"encoder.{i}") for i in (0, 2, 4)])
            looks = oracle.attention(oracle.linear(query, *pair("decoder.query")), keys, HEADS, inside)
            heads = values[n].reshape(cells, HEADS, -1)
            looked = np.concatenate([looks[h] @ heads[:, h] for h in range(HEADS)])
            output = norm(query + oracle.linear(looked, *pair("decoder.out")), "decoder.norm1")
            wide = np.maximum(oracle.linear(output, *pair("decoder.widen")), 0)
            output = norm(output + oracle.linear(wide, *pair("decoder.narrow")), "decoder.norm2")
            guess = oracle.mlp(output, [pair(f"predictor.{i}") for i in (0, 2, 4)])
            probability = 1 / (1 + math.exp(-guess[0]))
            entropies.append(-math.log(probability if instances.real[n, k] else 1 - probability))
            if instances.real[n, k]:
                mass[n] += looks
                size = box[2:] - box[:2]
                sides = np.concatenate((point - box[:2], box[2:] - point))
                errors.append((np.abs(1 / (1 + np.exp(-guess[1:])) - sides) / np.concatenate((size, size))).sum())
    shape = images, cells, HEADS, -1
    split = [v.reshape(shape).transpose(0, 2, 1, 3) for v in (student_values, values)]
    return {
        "loss_icd": method.weight * oracle.value_distance(*split, mass),
        "loss_icd_identify": sum(entropies) / max(1, len(entropies)),
        "loss_icd_locate": sum(errors) / max(1, len(errors)),
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("settings", [{}, {"fakes": 0.0, "jitter": 0.0, "weight": 2.0}], ids=["default", "still"])
@pytest.mark.parametrize("image", [IMAGE, (40, 35)], ids=["whole", "padded"])
def test_terms_are_the_formula(seed, settings, image):
    given, method = step(3, seed), built(**settings)
    given.image_sizes[0] = image
    found = {key: value.item() for key, value in terms_of(method, given, seed).items()}
    assert found == pytest.approx(expected_terms(method, given, drawn(given, method, seed)), rel=1e-5)


def test_the_decoder_is_torchs_attention():
    torch.manual_seed(0)
    decoder, (images, objects, cells, channels) = Decoder(8, HEADS), (2, 3, 12, 8)
    with torch.no_grad():
        for bias in (decoder.query.bias, decoder.value.bias, decoder.out.bias):
            bias.normal_()
    queries, features = torch.randn(images, objects, channels), torch.randn(images, cells, channels)
    places, inside = torch.randn(images, cells, channels), torch.rand(images, cells) > 0.3
    theirs = nn.MultiheadAttention(channels, HEADS, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([decoder.query.weight, decoder.key.weight, decoder.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([decoder.query.bias, torch.randn(8), decoder.value.bias]))
        theirs.out_proj.weight.copy_(decoder.out.weight)
        theirs.out_proj.bias.copy_(decoder.out.bias)
        keys = features + decoder.place(places)
        looked, attention = theirs(queries, keys, features, ~inside, average_attn_weights=False)
        found = decoder(queries, features, places, inside)
    outputs = decoder.norm1(queries + looked)
    outputs = decoder.norm2(outputs + decoder.narrow(decoder.widen(outputs).relu()))
    assert_close(found[0], outputs, rtol=1e-5, atol=1e-5)
    # a bias of the keys, random above, does not show
    assert_close(found[1], attention, rtol=1e-5, atol=1e-6)
    assert not found[1].transpose(1, 3)[~inside].any()
    assert_close(found[2].transpose(1, 2).flatten(2), decoder.value(features))


def test_gradients():
    """The student learns from L_icd alone, the decoder from its own losses alone, W_s from L_icd alone."""
    given, method = step(2), built(warmup=0)
    terms = terms_of(method, given, 0)
    names = [name for name, _ in method.named_parameters()]
    parameters, neck = list(method.parameters()), given.student.neck

    def reached(term: Tensor) -> set[str]:
        grads = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        return {name for name, grad in zip(names, grads, strict=True) if grad is not None and grad.any()}

    assert reached(terms["loss_icd"]) == {"student_value.weight", "student_value.bias"}
    own = {name for name in names if not name.startswith("student_value")}
    assert reached(terms["loss_icd_identify"]) | reached(terms["loss_icd_locate"]) == own
    decoder_loss = terms["loss_icd_identify"] + terms["loss_icd_locate"]
    assert torch.autograd.grad(decoder_loss, neck, retain_graph=True, allow_unused=True) == (None, None)
    grads = torch.autograd.grad(terms["loss_icd"], neck, retain_graph=True)
    assert all(grad[0].any() and not grad[1].any() for grad in grads), "the second image has no objects"


def test_gradient_of_the_distance_is_a_loops():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 4, dtype=torch.double), torch.randn(2, 2, 5, 4)
    attention = torch.rand(2, 2, 5)
    leaf = student.float().requires_grad_()
    (found,) = torch.autograd.grad(value_distance(leaf, teacher, attention), leaf)
    for index in [(0, 0, 0, 0), (1, 0, 3, 2), (1, 1, 4, 3)]:
        ends = []
        for sign in (1, -1):
            moved = student.numpy().copy()
            moved[index] += sign * 1e-5
            ends.append(oracle.value_distance(moved, teacher.double().numpy(), attention.double().numpy()))
        assert found[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3)


def test_a_student_equal_to_its_teacher_pays_nothing():
    given, method = step(2), built()
    given.student.neck = given.teacher.neck
    method.student_value.load_state_dict(method.decoder.value.state_dict())
    assert terms_of(method, given, 0)["loss_icd"].item() == 0


def test_the_student_learns_after_the_warmup_and_the_count_is_saved():
    method, sums = built(warmup=2), []
    for _ in range(4):
        given = step(2)
        terms_of(method, given, 0)["loss_icd"].backward()
        sums.append(sum(level.grad.abs().sum().item() for level in given.student.neck))
    assert sums[:2] == [0.0, 0.0]
    assert min(sums[2:]) > 0
    again = built(warmup=2)
    again.load_state_dict(method.state_dict())
    assert again.iteration == 4
    again.eval()
    terms_of(again, step(2), 0)
    assert again.iteration == 4, "only training counts"


@pytest.mark.slow
def test_the_decoder_learns():
    """To tell the objects of a fixed batch from what is drawn anew."""
    ctx = context(student_channels=32, teacher_channels=32)
    given, method = step(3, ctx=ctx), built(ctx, jitter=0.0)
    optimizer, losses = torch.optim.AdamW(method.parameters(), lr=1e-3), []
    for _ in range(300):
        terms = method(given)
        losses.append([terms["loss_icd_identify"].item(), terms["loss_icd_locate"].item()])
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    identify, locate = np.mean(losses[-20:], axis=0)
    # 4 of 25 instances are real: what is said without looking
    blind = -sum(p * math.log(p) for p in (4 / 25, 21 / 25))
    assert identify < 0.75 * blind
    assert locate < 0.1 * losses[0][1]


# ------------------------------------------------------------------------------------------------- instances


@pytest.mark.parametrize(
    ("objects", "ratio", "expected"),
    [(0, 5, 1), (1, 5, 6), (7, 5, 42), (60, 5, 300), (299, 5, 300), (400, 5, 400), (3, 0.5, 4), (0, 0, 0), (4, 0, 4)],
)
def test_numbers_of_instances(objects, ratio, expected):
    assert count_with_fakes(objects, ratio) == expected


def test_objects_come_first_then_fakes():
    boxes = [torch.tensor([[10.0, 20, 50, 60], [0, 0, 100, 40]]), torch.zeros(0, 4), torch.tensor([[5.0, 5, 15, 25]])]
    labels = [torch.tensor([2, 1]), torch.zeros(0, dtype=torch.long), torch.tensor([0])]
    sizes = [(80, 100), (64, 64), (50, 40)]
    torch.manual_seed(0)
    found = draw_instances(boxes, labels, sizes, 3, ratio=5)
    assert found.real.sum(dim=1).tolist() == [2, 0, 1]
    assert found.exists.sum(dim=1).tolist() == [12, 1, 6]
    assert found.real[0, :2].all()
    assert found.real[2, 0]
    assert (found.exists | ~found.real).all()
    assert_close(found.boxes[0, :2], torch.tensor([[0.1, 0.25, 0.5, 0.75], [0, 0, 1, 0.5]]))
    assert_close(found.boxes[2, 0], torch.tensor([5 / 40, 5 / 50, 15 / 40, 25 / 50]))
    assert found.labels[0, :2].tolist() == [2, 1]
    assert found.labels[2, 0] == 0
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 1
    assert set(found.labels.unique().tolist()) == {0, 1, 2}


def test_fakes_and_points_are_spread_as_said():
    one = [torch.tensor([[10.0, 20, 50, 60]])] * 200
    torch.manual_seed(0)
    found = draw_instances(one, [torch.tensor([0])] * 200, [(80, 100)] * 200, 4, ratio=9)
    real = found.points[found.real]
    assert real.std(dim=0).min() > 0
    assert bool(((real - torch.tensor([0.3, 0.5])).abs() <= 0.3 * torch.tensor([0.4, 0.5]) + 1e-6).all())
    fake = found.boxes[~found.real]
    size, center = fake[:, 2:] - fake[:, :2], (fake[:, 2:] + fake[:, :2]) / 2
    assert size.max() <= 0.6
    assert size.min() >= 0
    # a normal distribution of mean and deviation 0.2, cut at zero and at the image's border
    assert size.mean().item() == pytest.approx(0.2, abs=0.03)
    assert center.mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)
    assert found.labels[~found.real].bincount().min() > 350
    still = draw_instances(one, [torch.tensor([0])] * 200, [(80, 100)] * 200, 4, ratio=0, jitter=0.0)
    assert still.real.all()
    assert_close(still.points, torch.tensor([0.3, 0.5]).expand(200, 1, 2))


def test_sizes_are_classes_of_octaves():
    sides = [1.0, 63, 65, 127, 129, 255, 257, 511, 513, 5000]
    boxes = torch.tensor([[0.0, 0, side / 4000, side / 2000] for side in sides])[None]
    count = boxes.size(1)
    instances = Instances(
        torch.zeros(1, count, dtype=torch.long), boxes, torch.zeros(1, count, 2), *torch.ones(2, 1, count).bool()
    )
    found = descriptors(instances, [(2000, 4000)], 2)
    assert found.shape == (1, count, 2 + 256 + 10)
    assert found[0, :, -10:-5].argmax(dim=1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert torch.equal(found[..., -10:-5], found[..., -5:])
    expected = oracle.descriptor(0, boxes[0, 2].tolist(), [0.0, 0.0], (2000, 4000), 2)
    assert_close(found[0, 2], torch.tensor(expected))


def test_places_of_a_padded_level():
    shares, inside = level_places((2, 3), 8, [(16, 24), (9, 10), (8, 24)], torch.device("cpu"))
    assert inside.tolist() == [[True] * 6, [True, True, False] * 2, [True] * 3 + [False] * 3]
    assert_close(shares[0, 4], torch.tensor([1.0, 2 / 3]))
    assert_close(shares[1, 0], torch.tensor([1 / 2, 1 / 2]))
    assert_close(shares[2, :3, 1], torch.tensor([1 / 3, 2 / 3, 1.0]))


# ------------------------------------------------------------------------------------------------- odd input


def test_images_without_objects():
    given, method = step(2), built(warmup=0)
    given.gt_boxes, given.gt_labels = [b[:0] for b in given.gt_boxes], [c[:0] for c in given.gt_labels]
    terms = terms_of(method, given, 0)
    assert terms["loss_icd"].item() == terms["loss_icd_locate"].item() == 0 < terms["loss_icd_identify"].item()
    sum(terms.values()).backward()
    assert all(bool(level.grad.isfinite().all()) and not level.grad.any() for level in given.student.neck)
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters())
    nothing = terms_of(built(fakes=0.0), given, 0)
    assert [value.item() for value in nothing.values()] == [0.0, 0.0, 0.0]


def test_a_box_without_area_stays_finite():
    given, method = step(1), built()
    given.gt_boxes = [torch.tensor([[10.0, 10.0, 10.0, 30.0]])]
    given.gt_labels = [torch.tensor([1])]
    terms = terms_of(method, given, 0)
    assert all(bool(value.isfinite()) for value in terms.values())
    assert terms["loss_icd_locate"] < 4000


def test_widths_weight_and_heads():
    narrow = built(context(student_channels=6), warmup=0)
    assert narrow.student_value.weight.shape == (8, 6)
    given = step(2, ctx=context(student_channels=6))
    terms_of(narrow, given, 0)["loss_icd"].backward()
    assert given.student.neck[0].grad.any()
    assert set(terms_of(built(weight=0.0), step(2), 0)) == {"loss_icd_identify", "loss_icd_locate"}
    for heads, channels in ((3, 8), (8, 12), (2, 6)):
        with pytest.raises(MethodError, match="set heads to a divisor"):
            build_method("icd", context(teacher_channels=channels), heads=heads)


def test_half_precision():
    given, method = step(2), built()
    exact = terms_of(method, given, 0)
    with torch.autocast("cpu", torch.bfloat16):
        terms = terms_of(method, given, 0)
    assert all(value.dtype == torch.float32 for value in terms.values())
    for key, value in terms.items():
        assert value.item() == pytest.approx(exact[key].item(), rel=0.03)
