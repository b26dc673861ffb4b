"""The teacher's view of images: against the method's own maps, loops, and what the training's hook looks at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.flat import maps_of
from support.worlds import runs
from torch.testing import assert_close

from benchmark.evidence.records import ReportError
from benchmark.probe import views
from benchmark.training import dynamics
from pgd.distiller import context_of
from pgd.methods import build_method


@pytest.fixture
def teacher(taught_world) -> views.Teacher:
    taught_world.settle()
    return views.Teacher(taught_world.folder, "gfl")


@pytest.mark.slow
def test_shows_rich_images_as_they_are(teacher, tiny_data):
    content = json.loads(Path(tiny_data.val_annotations).read_text())
    plain = {image["id"]: [] for image in content["images"]}
    for item in content["annotations"]:
        if not item.get("iscrowd"):
            plain[item["image_id"]].append(item)
    assert teacher.ids == [i for i in sorted(plain) if len(plain[i]) >= 3] != []
    scene, first = teacher.scene(0), teacher.ids[0]
    name = next(image["file_name"] for image in content["images"] if image["id"] == first)
    assert np.array_equal(scene.picture, cv2.imread(str(Path(tiny_data.val_images) / name))[..., ::-1])
    names = {c["id"]: c["name"] for c in content["categories"]}
    for item, box, label in zip(plain[first], scene.gt_boxes, scene.gt_labels, strict=True):
        x, y, w, h = item["bbox"]
        assert box.tolist() == pytest.approx([x, y, x + w, y + h])
        assert tiny_data.classes[label] == names[item["category_id"]]
    assert len(scene.scores) == len(scene.boxes) == len(scene.grid.centers)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_maps_are_those_that_the_method_uses(teacher, index):
    scene, context = teacher.scene(index), context_of(teacher.model, teacher.model)
    image = scene.grid, scene.scores, scene.boxes, scene.gt_boxes, scene.gt_labels, scene.ignored
    cls, reg, background = maps_of(build_method("pgd", context, topk=4), *image)
    for expected, xi in ((cls, 0.8), (reg, 0.6)):
        maps = views.maps_of(scene, xi, 4)
        assert_close(maps.weights, expected)
        assert torch.equal(maps.top > 0, expected > 0)
        assert (maps.quality[maps.top > 0] > 0).all()
    assert_close(views.background_of(scene), background * scene.grid.valid[0])
    context = replace(context, anchor_free=True)
    weights, backgrounds = views.versions(scene, 0.8, 4)
    for name, faults in zip(views.VERSIONS[1:], (["B4", "B5"], ["B2", "B4", "B5"]), strict=True):
        torch.manual_seed(0)
        cls, _, background = maps_of(build_method("pgd_released", context, faults=faults, topk=4), *image)
        assert_close(weights[name], cls)
        assert_close(backgrounds[name], background * scene.grid.valid[0])


def test_looking_takes_no_random_number(teacher):
    state = torch.get_rng_state()
    views.versions(teacher.scene(0), 0.8, 4)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_survives_the_swap(teacher):
    scenes = [teacher.scene(i) for i in range(len(teacher.ids))]
    total = kept = boxes = boxes_kept = 0
    for scene in scenes:
        for x1, y1, x2, y2 in scene.gt_boxes.tolist():
            inside = [(x, y) for x, y in scene.grid.centers.tolist() if x1 < x < x2 and y1 < y < y2]
            still = [(x, y) for x, y in inside if x1 < y < x2 and y1 < x < y2]
            total, kept = total + len(inside), kept + len(still)
            boxes, boxes_kept = boxes + bool(inside), boxes_kept + bool(still)
    assert views.surviving(scenes) == pytest.approx((kept / total, boxes_kept / boxes))
    assert 0 < kept < total
    assert all(np.isnan(views.surviving([])))


def test_settings_are_those_of_the_run(tiny_world):
    own = {"method": "pgd", "inherit": "head+neck", "settings": {"topk": 8, "xi_reg": 0.5}}
    expected = {"topk": 8, "xi_cls": 0.8, "xi_reg": 0.5}
    assert views.mask_settings(tiny_world.settle(runs(plain={}, own=own)), "gfl") == expected
    assert views.mask_settings(tiny_world.settle(runs(plain={})), "gfl")["topk"] == 8


def test_the_pair_is_the_first_with_a_teacher(taught_world):
    def change(content: dict) -> None:
        fcos = json.loads(json.dumps(content["pairs"]["gfl"]).replace("gfl_", "fcos_"))
        content["pairs"] = {"fcos": fcos, **content["pairs"]}
        content["runs"] = {"student": {"pair": "gfl"}}

    taught_world.settle(change)
    folder = taught_world.folder
    assert views.choose_pair(folder) == "gfl"
    assert views.choose_pair(folder, anchor_free=True) is None
    weights = folder / "work/teachers/fcos/weights.pth"
    weights.parent.mkdir()
    weights.touch()
    assert views.choose_pair(folder) == views.choose_pair(folder, anchor_free=True) == "fcos"
    assert views.choose_pair(folder, anchor_free=False) == "gfl"


def test_says_what_is_missing(tiny_world, tmp_path):
    with pytest.raises(ReportError, match=r"params\.yaml: no such file"):
        views.choose_pair(tmp_path / "nowhere")
    tiny_world.settle()
    with pytest.raises(ReportError, match="no trained teacher of the pairs gfl"):
        views.choose_pair(tmp_path)
    with pytest.raises(ReportError, match=r"weights\.pth: no such checkpoint"):
        views.Teacher(tmp_path, "gfl")


@pytest.mark.slow
def test_says_which_image_is_missing(taught_world, tiny_data, tmp_path):
    taught_world.describe(replace(tiny_data, val_images=str(tmp_path / "gone"), train_images=str(tmp_path / "gone")))
    taught_world.settle()
    with pytest.raises(ReportError, match=r"gone.*no such image"):
        views.Teacher(tmp_path, "gfl").scene(0)
    with pytest.raises(ReportError, match="training images cannot be read"):
        views.region_shares(tmp_path, "pgd")


@pytest.mark.slow
def test_region_shares_are_those_of_the_training(taught_world, monkeypatch):
    looked = []
    original = dynamics.shares
    monkeypatch.setattr(dynamics, "shares", lambda g, region: looked.append(region) or original(g, region))
    taught_world.train(taught_world.settle(), "pgd")
    region, found = looked[0], views.region_shares(taught_world.folder, "pgd")
    for i, name in enumerate(dynamics.REGIONS):
        assert found[name] == pytest.approx(float((region == i).sum() / (region >= 0).sum()))
    assert 0 < found["key"] < found["background"] < 1
