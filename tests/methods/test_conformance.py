"""Every registered method on every detector that it supports, whatever the weights: what all of them promise.

A method that does not fit a detector must be refused with a sentence; what is refused is listed here.
"""

from __future__ import annotations

import functools
import re

import pytest
import torch
from support.detectors import ALL, BOXES, LABELS, QUIET, batch, images, model_config, objects, pair, sample
from support.served import METHOD_NAMES, REFUSED, SERVED_IN_TIERS, STILL, settings_at_once
from torch import Tensor
from torch.testing import assert_close

from benchmark.experiment.config import MINI
from pgd.distiller import Distiller
from pgd.methods import METHODS
from pgd.methods.base import NEEDS, MethodError
from pgd.scaling import published_settings

pytestmark = QUIET

#: adapters' parameters without effect: a softmax over positions does not see a bias
IDLE = {"fgd": ("conv_mask_s.bias", "conv_mask_t.bias")}


def build(method: str, name: str, **settings) -> Distiller:
    """A pair with the method's settings for this detector at mini scale, but no warm-up."""
    return pair(name, method=method, **{**settings_at_once(method, name), **settings})


def kind(name: str) -> str:
    """A parameter's name without its level."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


@functools.cache
def student_losses(name: str) -> frozenset[str]:
    """What a detector calls its own losses."""
    model = pair(name)
    model.method = None
    return frozenset(model.loss(*batch()))


def method_terms(name: str, losses: dict) -> dict[str, Tensor]:
    """The method's terms among the losses of a step."""
    return {key: value for key, value in losses.items() if key not in student_losses(name)}


@pytest.mark.parametrize(("method", "name"), sorted(REFUSED))
def test_what_does_not_fit_is_refused_with_a_reason(method, name):
    with pytest.raises(MethodError, match=REFUSED[method, name]) as error:
        build(method, name)
    assert len(str(error.value).split()) > 8, "a sentence"


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), SERVED_IN_TIERS)
def test_it_trains(method, name):
    """Three steps: finite, gradients reach student and adapters and nothing else, the teacher stays as it is."""
    model = build(method, name)
    teacher = {key: value.clone() for key, value in model.teacher.state_dict().items()}
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=1e-4)
    reached: set[str] = set()
    for _ in range(3):
        losses = model.loss(*batch())
        terms = method_terms(name, losses)
        assert terms
        assert all(key.startswith("loss_") and value.ndim == 0 for key, value in terms.items())
        model.zero_grad()
        total, _ = model.parse_losses(terms)
        assert bool(total.isfinite())
        total.backward()
        grads = {key: p.grad for key, p in trained.items() if p.grad is not None}
        assert all(bool(g.isfinite().all()) for g in grads.values())
        reached |= {key for key, g in grads.items() if g.any()}
        torch.nn.utils.clip_grad_norm_(trained.values(), 10)
        optimizer.step()
    assert any(key.startswith("student.neck.") for key in reached)
    assert any(key.startswith("student.backbone.layer4") for key in reached)
    # on some level at least: the coarsest is a single position here
    own, learned = ({kind(key) for key in keys if key.startswith("method.")} for keys in (trained, reached))
    assert not {key for key in own - learned if not key.endswith(IDLE.get(method, ()))}, "every adapter learns"
    assert all(torch.equal(value, teacher[key]) for key, value in model.teacher.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.teacher.parameters())
    assert all(key.split(".")[0] in ("student", "method") for key in model.state_dict()), "the teacher is not saved"


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), SERVED_IN_TIERS)
def test_odd_batches(method, name):
    """An image without objects, one with three hundred, a batch of one, two empty images."""
    crowd, labels = objects(300)
    empty, full = sample([], []), sample(crowd.tolist(), labels.tolist())
    model = build(method, name)
    first = model.student.neck.lateral_convs[0].conv.weight
    for samples in ([empty, full], [full], [empty, empty]):
        losses = model.loss(images(len(samples)), samples)
        total, _ = model.parse_losses(losses)
        assert bool(total.isfinite())
        (grad,) = torch.autograd.grad(sum(method_terms(name, losses).values()), first, allow_unused=True)
        assert grad is None or bool(grad.isfinite().all())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), SERVED_IN_TIERS)
def test_order_of_images_does_not_matter(method, name):
    still = STILL.get(method, {})
    if method == "pgd_released":  # B1 mixes images, B3 decodes by the place in the batch, B5 is noise
        still = {"faults": sorted(build(method, name).method.faults - {"B1", "B3", "B5"})}
    model = build(method, name, **still)
    boxes, labels = [*BOXES, [], BOXES[0][:1]], [*LABELS, [], LABELS[0][:1]]
    inputs, order = images(4), [2, 0, 3, 1]
    samples = [sample(*both) for both in zip(boxes, labels, strict=True)]
    with torch.no_grad():
        expected = method_terms(name, model.loss(inputs, samples))
        turned = method_terms(name, model.loss(inputs[order], [samples[i] for i in order]))
    for key, value in expected.items():
        assert_close(turned[key], value, rtol=2e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), SERVED_IN_TIERS)
def test_half_precision(method, name, monkeypatch):
    model = build(method, name)
    if name in ("autoassign", "vfnet"):  # mmdet's own losses of these mix types
        own = {"loss_own": next(model.student.parameters()).sum() * 0}
        monkeypatch.setattr(model.student.bbox_head, "loss_by_feat", lambda *a, **k: own)
        if "assignment" in model.method.needs:
            pytest.skip("the assignment comes with the losses that cannot run")
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(*batch())
    total, _ = model.parse_losses(losses)
    total.backward()
    assert bool(total.isfinite())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), SERVED_IN_TIERS)
def test_needs_are_true(method, name):
    """What a method does not ask for it does not get, and what it asks for it reads."""
    model = build(method, name)
    needs = model.method.needs
    assert needs
    assert needs <= NEEDS.keys()
    for need in needs:
        model.method.needs = needs - {need}
        with pytest.raises((AttributeError, TypeError, LookupError, ValueError)):
            model.loss(*batch())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), SERVED_IN_TIERS)
def test_state_is_saved_and_restored(method, name):
    """Adapters and counters: a method that goes on from its state gives the same losses."""
    model = build(method, name)
    model.loss(*batch())
    with torch.no_grad():
        for p in model.method.parameters():
            p.add_(0.01 * torch.randn_like(p))
    again = build(method, name)
    again.load_state_dict(model.state_dict())
    losses = []
    for one in (model, again):
        torch.manual_seed(7)
        with torch.no_grad():
            losses.append(method_terms(name, one.loss(*batch())))
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(value, losses[1][key]) for key, value in losses[0].items())


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_settings_are_known(method):
    """Published and scaled settings are settings of the method, and the weight that is searched is one of them."""
    cls = METHODS.get(method)
    for detector in (*cls.published, "gfl"):
        settings = published_settings(method, detector)
        assert cls.weight_setting in settings
        assert cls.scaling.keys() <= settings.keys()
        assert cls.published.get(detector, {}).items() <= settings.items(), "unchanged at full scale"
    assert set(cls.published) <= set(ALL)
    assert cls.__module__ == f"pgd.methods.{method}", "one file each, named after it"
    assert model_config("gfl")["neck"]["out_channels"] == MINI.channels
