"""Which values of a parameter `make test` takes; the others are among the long tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def long_but(kept: Callable[[Any], bool], values: Iterable[Any]) -> list:
    """Parameter sets of the values (a tuple: several arguments), marked ``long`` but where ``kept`` says yes."""
    given = ((value, value if isinstance(value, tuple) else (value,)) for value in values)
    return [pytest.param(*arguments, marks=() if kept(value) else pytest.mark.long) for value, arguments in given]
