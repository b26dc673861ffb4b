"""A student and a teacher must have been made for the images that the Distiller shows them."""

from __future__ import annotations

import copy

import pytest
from mmengine.config import Config
from support.detectors import QUIET, model_config
from support.preprocessors import OTHER

from pgd.distiller import Distiller
from pgd.inputs import INPUTS, other_input

pytestmark = [QUIET, pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")]
#: that of the Distiller
SHARED = {
    "type": "DetDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
}


def built(shared: dict | None = SHARED, **brought: dict) -> Distiller:
    """With a student and a teacher that may bring preprocessors of their own."""
    models = {who: copy.deepcopy(model_config("gfl")) for who in ("student", "teacher")}
    for who, preprocessor in brought.items():
        models[who]["data_preprocessor"] = preprocessor
    return Distiller(**models, inherit="head+neck", data_preprocessor=shared)


def test_every_setting_is_tried():
    assert set(OTHER) == set(INPUTS)


@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("key", OTHER)
def test_who_was_made_for_other_images_is_refused(who, key):
    with pytest.raises(ValueError, match="data_preprocessor") as caught:
        built(**{who: {**SHARED, key: OTHER[key]}})
    shared = SHARED.get(key, INPUTS[key])
    said = f"data_preprocessor.{key} is {OTHER[key]} for the {who}, {shared} for the Distiller, whose images it gets: "
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith("with the same preprocessing, and give the Distiller theirs")


@pytest.mark.parametrize("key", sorted(SHARED.keys() & INPUTS))
def test_what_only_the_distiller_does_is_refused(key):
    """A key that is absent stands for mmdet's default."""
    with pytest.raises(ValueError, match=f"data_preprocessor.{key} is {INPUTS[key]} for the teacher"):
        built(teacher={name: value for name, value in SHARED.items() if name != key})


def test_a_forgotten_preprocessor_is_refused():
    with pytest.raises(ValueError, match=r"mean is \[123.675, 116.28, 103.53\] for the student, None for the Dist"):
        built(shared=None, student=SHARED)


def test_the_same_in_other_words_is_taken():
    """Sequences of another type, defaults written out, and what changes no pixel; it is the Distiller's that acts."""
    words = {name: tuple(value) if isinstance(value, list) else value for name, value in SHARED.items()}
    model = built(student=words, teacher={**words, "pad_value": 0, "rgb_to_bgr": False, "boxtype2tensor": False})
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(SHARED["mean"])
    assert not hasattr(model.teacher.data_preprocessor, "mean")


@pytest.mark.parametrize("inside", [True, False])
def test_that_of_a_config_file_is_looked_at(tmp_path, inside):
    """In its model, or beside it, from where mmengine's Runner takes it."""
    model = model_config("gfl")
    other = {"data_preprocessor": {**SHARED, "std": OTHER["std"]}}
    Config({"model": {**model, **other}} if inside else {"model": model, **other}).dump(tmp_path / "teacher.py")
    with pytest.raises(ValueError, match=r"data_preprocessor.std is \[1.0, 1.0, 1.0\] for the teacher"):
        Distiller(student=model, teacher=str(tmp_path / "teacher.py"), data_preprocessor=SHARED)


def test_that_of_a_name_of_mmdet_is_looked_at():
    with pytest.raises(ValueError, match=r"mean is \[123.675, 116.28, 103.53\] for the teacher, \[103.53, 116.28"):
        Distiller(
            student=model_config("gfl"),
            teacher="mmdet::gfl/gfl_r50_fpn_1x_coco.py",
            data_preprocessor={**SHARED, "pad_size_divisor": 32, "mean": OTHER["mean"]},
        )


def test_the_first_difference_is_told_with_both_values():
    assert other_input(SHARED, SHARED) is None
    assert other_input({}, {"pad_value": 0, "mean": None}) is None
    assert other_input({"std": (1, 2), "pad_value": 3}, {"std": [1, 3]}) == ("std", [1, 2], [1, 3])
