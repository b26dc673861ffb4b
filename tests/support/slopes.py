"""Gradients of a method against differences of its oracle, which works in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch


def assert_slopes(
    loss: torch.Tensor,
    leaves: Sequence[torch.Tensor],
    value: Callable[[list[np.ndarray]], float],
    rel: float = 1e-3,
    reach: float = 1e-6,
) -> None:
    """Each leaf's gradient along its own direction is the slope of the oracle there.

    Args:
        loss: a scalar with a gradient by every leaf.
        leaves: what the oracle is a function of.
        value: the oracle, from the leaves' values.
        rel: tolerated error.
        reach: how far the oracle goes to both sides, in units of the direction's entries.
    """
    gradients = torch.autograd.grad(loss, leaves)
    values = [leaf.detach().double().numpy() for leaf in leaves]
    for index, gradient in enumerate(gradients):
        # half along the gradient, so that the slope is not a small difference of large numbers
        own = gradient.double().numpy()
        random = np.random.default_rng(index).standard_normal(own.shape)
        direction = own / max(np.abs(own).max(), 1e-30) + 0.3 * random
        ends = []
        for sign in (1, -1):
            moved = [v + sign * reach * direction if i == index else v for i, v in enumerate(values)]
            ends.append(value(moved))
        expected = (ends[0] - ends[1]) / (2 * reach)
        assert float((own * direction).sum()) == pytest.approx(expected, rel=rel, abs=1e-9)
