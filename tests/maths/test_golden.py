"""Losses and weight maps against the values that the authors' released code gives (tests/data/golden)."""

from __future__ import annotations

import pytest
from support.flat import prediction_guided_weights
from support.golden import assert_close, load, value_and_grad

from pgd.maths.regions import (
    background_mask,
)
from pgd.methods.pgd import pgd_cls_loss, pgd_cls_weights, pgd_reg_loss


@pytest.mark.parametrize("case", [0, 1, 2])
def test_pgd_weights_as_released(case):
    meta, a = load(f"pgd_weights_{case}")
    args = (a["teacher_logits"].sigmoid(), a["teacher_boxes"], a["points"], a["gt_boxes"], a["gt_labels"])
    weights = prediction_guided_weights(*args, meta["xi"], meta["topk"], released=True)
    assert_close(weights, a["weights_anchor_based"])
    assert_close(background_mask(a["points"], a["gt_boxes"]), a["background_anchor_based"])


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("mixed", [False, True], ids=["per_image", "released"])
def test_pgd_cls_loss(case, mixed):
    meta, a = load(f"pgd_loss_{case}")
    masking, settings = (
        {k: meta[k] for k in keys} for keys in (("alpha", "beta", "level_weight"), ("delta", "temperature"))
    )

    def loss(student):
        weights = pgd_cls_weights(a["foreground"].squeeze(1), a["background"].squeeze(1), **masking)
        return pgd_cls_loss(student, a["teacher"], weights.sum(dim=0, keepdim=True) if mixed else weights, **settings)

    value, grad = value_and_grad(loss, a["student"])
    kind = "cls_released" if mixed else "cls_per_image"
    assert_close(value, a[kind])
    assert_close(grad, a[f"{kind}_grad"])


@pytest.mark.parametrize("case", [0, 1])
def test_pgd_reg_loss(case):
    meta, a = load(f"pgd_loss_{case}")
    settings = {k: meta[k] for k in ("gamma", "delta", "temperature")}
    value, grad = value_and_grad(
        lambda s: pgd_reg_loss(s, a["teacher"], a["foreground"].squeeze(1), **settings), a["student"]
    )
    assert_close(value, a["reg"])
    assert_close(grad, a["reg_grad"])
