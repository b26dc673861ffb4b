"""Two batches of half of the images before an update (``accumulative_counts``) against one with all of them.

mmengine takes the mean of the batches' gradients. What this makes of a method is what data parallel training makes of
it: the same where its terms are means over images, and another thing for those that are listed there. A detector's own
losses are divided by the positives of each batch, so that they differ with every method, and without one.
"""

from __future__ import annotations

import functools

import pytest
import torch
from support.detectors import QUIET
from support.parallel import (
    ALL_BOXES,
    APART,
    CLOSE,
    PROCESSES,
    SHARE,
    TOGETHER,
    Step,
    accumulated,
    step,
    terms_of,
    unlike,
)
from support.served import METHOD_NAMES
from torch import Tensor

from pgd.methods.pgd import pgd_reg_loss

pytestmark = [QUIET, pytest.mark.slow]


def mean(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """By name; what is not in one of them is zero there."""
    return {name: sum(part.get(name, 0) for part in parts) / len(parts) for name in set().union(*parts)}


@functools.cache
def parts(method: str, **changes: object) -> list[Step]:
    """What each half of the images gives, of the method's terms."""
    starts = range(0, len(ALL_BOXES), SHARE)
    return [step(method, first, first + SHARE, of=terms_of(method), **changes) for first in starts]


@functools.cache
def whole(method: str, **changes: object) -> Step:
    return step(method, 0, len(ALL_BOXES), of=terms_of(method), **changes)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_an_update_is_by_the_mean_of_its_batches(method):
    """Whatever a method keeps from one batch for the next."""
    assert len(parts(method)) == PROCESSES
    assert unlike(accumulated(method), mean([part.gradients for part in parts(method)])) == []


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_half_batches_make_the_update_of_a_whole_one(method):
    losses = unlike(mean([part.losses for part in parts(method)]), whole(method).losses)
    gradients = unlike(mean([part.gradients for part in parts(method)]), whole(method).gradients)
    if method not in APART:
        assert losses == gradients == []
    else:
        assert losses or gradients, f"not apart after all: {APART[method]}"
    assert not set(losses) & set(TOGETHER.get(method, ()))


def test_a_detectors_own_losses_are_divided_by_the_positives_of_each_batch():
    """With processes all of them count together; batch after batch cannot."""
    halves = [step("fitnet", first, first + SHARE) for first in range(0, len(ALL_BOXES), SHARE)]
    apart = unlike(mean([half.losses for half in halves]), step("fitnet", 0, len(ALL_BOXES)).losses)
    assert apart == ["loss_cls", "loss_bbox", "loss_dfl"]


# ------------------------------------------------------- what the halves' means must be weighed by, to be the whole's


def weighed(method: str, name: str, counts: list[int]) -> Tensor:
    """The mean of the halves' terms by these counts."""
    shares = [count * part.losses[name] for count, part in zip(counts, parts(method), strict=True)]
    return sum(shares) / sum(counts)


@pytest.mark.parametrize("name", ["loss_icd_identify", "loss_icd_locate"])
def test_icd_goes_by_objects(name):
    objects = [sum(map(len, ALL_BOXES[first : first + SHARE])) for first in range(0, len(ALL_BOXES), SHARE)]
    assert len(set(objects)) > 1
    torch.testing.assert_close(weighed("icd", name, objects), whole("icd").losses[name], **CLOSE)


def test_bckd_goes_by_positives():
    """Of both terms by the same ones, where no level is left out."""
    shares = []
    for name in ("loss_bckd_cls", "loss_bckd_box"):
        first, second = (part.losses[name] for part in parts("bckd", all_levels=True))
        shares.append((whole("bckd", all_levels=True).losses[name] - first) / (second - first))
    assert 0 < shares[0] < 0.5, "there are fewer objects in the second half"
    torch.testing.assert_close(*shares, rtol=1e-3, atol=0.0)


def test_ld_grows_with_the_images():
    for name in ("loss_ld", "loss_ld_vlr"):
        torch.testing.assert_close(sum(part.losses[name] for part in parts("ld")), whole("ld").losses[name], **CLOSE)


def test_pgd_goes_by_key_positions():
    """L_reg of a level, with more of them in one half than in the other."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 8, 6, 5, generator=generator) for _ in range(2))
    keys = torch.rand(4, 6, 5, generator=generator)
    keys = keys * (keys > torch.tensor([0.2, 0.5, 0.9, 0.8])[:, None, None])
    settings = {"gamma": 0.3, "delta": 0.2, "temperature": 0.8}
    halves = [slice(0, 2), slice(2, 4)]
    counts = [int((keys[half] > 0).sum()) for half in halves]
    terms = [pgd_reg_loss(student[half], teacher[half], keys[half], **settings) for half in halves]
    joined = pgd_reg_loss(student, teacher, keys, **settings)
    assert counts[0] > 2 * counts[1]
    torch.testing.assert_close(joined, sum(n * term for n, term in zip(counts, terms, strict=True)) / sum(counts))
    assert abs(joined - sum(terms) / 2) > 1e-3
