"""Anchors and points of a head, made once for every size of its maps instead of in every step."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from torch import nn

#: sizes of batches that are kept: trainings at one size need one, at several scales they come again
KEPT = 64
#: what a generator of mmdet's is asked for
ASKED = ("grid_priors", "valid_flags")


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _remembered(function: Callable) -> Callable:
    kept = lru_cache(KEPT)(lambda args, kwargs: function(*args, **dict(kwargs)))

    @wraps(function)
    def ask(*args, **kwargs) -> list:
        # lists are the caller's to change, the tensors in them are not
        return list(kept(_hashable(args), _hashable(sorted(kwargs.items()))))

    return ask


def remember_priors(head: nn.Module) -> None:
    """Let a head's prior generator answer equal questions with the tensors that it has made before."""
    for name in ASKED:
        if (function := getattr(head.prior_generator, name, None)) is not None:
            setattr(head.prior_generator, name, _remembered(function))
