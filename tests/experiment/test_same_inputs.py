"""A teacher must see the pixels that it was trained on: pairs of another preprocessing are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.preprocessors import OTHER
from support.worlds import light_content

from benchmark.experiment.config import training_config
from benchmark.experiment.settings import Detector, Params, SettingsError, parse
from pgd.inputs import INPUTS


@pytest.fixture
def params() -> Params:
    return parse(light_content())


def with_options(params: Params, who: str, **preprocessor: object) -> Params:
    """Another preprocessor for the ``teacher`` or the ``student``."""
    pair = params.pairs["gfl"]
    detector: Detector = getattr(pair, who)
    options = {**detector.options, "model.data_preprocessor": {**PREPROCESSOR, **preprocessor}}
    return replace(params, pairs={"gfl": replace(pair, **{who: replace(detector, options=options)})})


PREPROCESSOR = {
    "type": "DetDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
    "pad_size_divisor": 32,
}


def test_every_setting_is_tried():
    assert set(OTHER) == set(INPUTS)


@pytest.mark.parametrize("who", ["teacher", "student"])
@pytest.mark.parametrize("key", OTHER)
def test_another_input_is_refused(params, tiny_data, key, who):
    asked = with_options(params, who, **{key: OTHER[key]})
    with pytest.raises(SettingsError) as caught:
        training_config(asked.student("pgd", 0), tiny_data, Path("t.pth"), Path("w"))
    said = str(caught.value)
    assert said.startswith(f"pairs.gfl: data_preprocessor.{key} is ")
    assert f"{OTHER[key]} for the {who}" in said
    assert said.endswith("take configs with the same preprocessing")
    # who needs no teacher may see what it likes
    assert training_config(asked.student("student", 0), tiny_data, None, Path("w"))


def test_what_is_written_out_and_what_is_left_to_the_default_are_equal(params, tiny_data):
    asked = with_options(params, "teacher", pad_value=0, rgb_to_bgr=False)
    assert training_config(asked.student("pgd", 0), tiny_data, Path("t.pth"), Path("w"))
