"""Preprocessors that show a detector other pixels."""

from __future__ import annotations

#: what a setting is changed to, by its key: of each of :data:`pgd.inputs.INPUTS`
OTHER = {
    "mean": [103.53, 116.28, 123.675],
    "std": [1.0, 1.0, 1.0],
    "bgr_to_rgb": False,
    "rgb_to_bgr": True,
    "pad_size_divisor": 64,
    "pad_value": 114,
}
