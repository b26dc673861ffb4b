"""What a data preprocessor does to pixels, by the key of its config, and where two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: with what mmdet does where a key is absent
INPUTS = {"mean": None, "std": None, "bgr_to_rgb": False, "rgb_to_bgr": False, "pad_size_divisor": 1, "pad_value": 0}


def other_input(first: Mapping, second: Mapping) -> tuple[str, Any, Any] | None:
    """The first key by which two configs of preprocessors show other pixels, and its two values; None if there is none.

    A detector sees what it was trained on, or it is blind, and nobody notices.
    """
    for key, absent in INPUTS.items():
        values = [list(v) if isinstance(v, tuple) else v for v in (first.get(key, absent), second.get(key, absent))]
        if values[0] != values[1]:
            return key, *values
    return None
