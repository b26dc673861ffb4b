"""The AP figures: perfect predictions, pycocotools itself, mmdet's own metric, subsets and area bounds."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import hotcoco
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmark.prepare import MINI_AREAS
from pgd.evaluation.coco import COCO_AREAS, FIGURES, CocoBoxes, coco_box_metrics, coco_class_ap
from pgd.evaluation.matching import category_figures, evaluated, figures

#: Bounds between which a dozen mini images have objects.
TINY_AREAS = (250, 700)
MMDET_NAMES = {
    "AP": "bbox_mAP",
    "AP50": "bbox_mAP_50",
    "AP75": "bbox_mAP_75",
    "AP_small": "bbox_mAP_s",
    "AP_medium": "bbox_mAP_m",
    "AP_large": "bbox_mAP_l",
    "AR100": "bbox_AR@100",
}


@pytest.fixture(scope="module", params=["mini", "coco"])
def truth(request) -> Path:
    """Ground truth: the tiny set's, or of real COCO images."""
    if request.param == "coco":
        return request.getfixturevalue("coco_sample") / "annotations" / "instances_val2017.json"
    return Path(request.getfixturevalue("tiny_data").train_annotations)


def perfect(content: dict) -> list[dict]:
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in content["annotations"]
        if not a["iscrowd"]
    ]


def perturbed(content: dict, seed: int) -> list[dict]:
    """Jittered boxes, some missing, some of a wrong class, and some of nothing; rounded as CocoBoxes rounds."""
    rng = np.random.default_rng(seed)
    categories = [c["id"] for c in content["categories"]]
    found = []
    for d in perfect(content):
        for _ in range(rng.choice([0, 1, 1, 2])):
            x, y, w, h = d["bbox"]
            box = np.array([x, y, w, h]) + rng.normal(0, 0.08, 4) * [w, h, w, h]
            wrong = rng.random() < 0.15
            found.append({**d, "bbox": box, "category_id": int(rng.choice(categories)) if wrong else d["category_id"]})
    for image in content["images"]:
        x, y = rng.uniform(0, 0.6) * image["width"], rng.uniform(0, 0.6) * image["height"]
        box = np.array([x, y, *rng.uniform(5, 60, 2)])
        found.append({"image_id": image["id"], "category_id": int(rng.choice(categories)), "bbox": box})
    for d in found:
        d["bbox"] = [round(float(v), 3) for v in np.maximum(d["bbox"], [-50, -50, 1, 1])]
        d["score"] = round(float(rng.uniform(0.05, 1)), 5)
    return found


def samples(content: dict, detections: list[dict]) -> list[dict]:
    """The detections as mmdet's data samples, one an image, boxes xyxy and labels from 0."""
    labels = {c["id"]: i for i, c in enumerate(content["categories"])}
    found = []
    for image in content["images"]:
        own = [d for d in detections if d["image_id"] == image["id"]]
        boxes = torch.tensor([d["bbox"] for d in own], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found.append(
            {
                "img_id": image["id"],
                "ori_shape": (image["height"], image["width"]),
                "pred_instances": {
                    "bboxes": boxes,
                    "scores": torch.tensor([d["score"] for d in own], dtype=torch.float64),
                    "labels": torch.tensor([labels[d["category_id"]] for d in own], dtype=torch.long),
                },
            }
        )
    return found


def measured(metric, content: dict, detections: list[dict]) -> dict[str, float]:
    """What a metric says after batches of five."""
    metric.dataset_meta = {"classes": tuple(c["name"] for c in content["categories"])}
    all_samples = samples(content, detections)
    for start in range(0, len(all_samples), 5):
        metric.process({}, all_samples[start : start + 5])
    with contextlib.redirect_stdout(io.StringIO()):
        return metric.evaluate(len(all_samples))


def test_ground_truth_as_predictions_is_perfect(truth):
    content = json.loads(truth.read_text())
    areas = TINY_AREAS if len(content["categories"]) == 10 else COCO_AREAS
    figures = coco_box_metrics(truth, perfect(content), areas=areas)
    assert list(figures) == list(FIGURES.values())
    assert figures == pytest.approx(dict.fromkeys(figures, 100.0))


@pytest.mark.parametrize("seed", [0, 1])
def test_same_as_pycocotools(truth, seed):
    detections = perturbed(json.loads(truth.read_text()), seed)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = coco_box_metrics(truth, detections)
    assert 5 < figures["AP"] < 95
    assert figures["AP50"] > figures["AP"]
    for i, name in FIGURES.items():
        expected = evaluation.stats[i]
        if expected < 0:
            assert math.isnan(figures[name])
        else:
            assert figures[name] == pytest.approx(100 * expected, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("areas", [COCO_AREAS, TINY_AREAS])
@pytest.mark.parametrize("count", [0, None])
def test_the_fast_library_gives_the_same_figures(truth, areas, count):
    """Without any detection, too."""
    content = json.loads(truth.read_text())
    detections = perturbed(content, 7)[:count]
    ranges = (0, 1e10), (0, areas[0]), areas, (areas[1], 1e10)
    ids = [image["id"] for image in content["images"]][:-1]
    ours, theirs = (figures(evaluated(truth, detections, ranges, ids, library=of)) for of in (hotcoco, None))
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_ap_is_the_mean_of_that_of_its_classes(truth):
    detections = perturbed(json.loads(truth.read_text()), 3)
    by_class = coco_class_ap(truth, detections)
    assert np.nanmean(list(by_class.values())) == pytest.approx(coco_box_metrics(truth, detections)["AP"], abs=1e-9)
    assert len({round(ap) for ap in by_class.values() if not math.isnan(ap)}) > 3, "classes differ"


def test_ap_of_a_class_is_that_of_a_set_with_this_class_alone(truth, tmp_path):
    content = json.loads(truth.read_text())
    detections = perturbed(content, 4)
    by_class = coco_class_ap(truth, detections)
    number = max(annotation["category_id"] for annotation in content["annotations"] if not annotation["iscrowd"])
    alone = {
        **content,
        "categories": [one for one in content["categories"] if one["id"] == number],
        "annotations": [one for one in content["annotations"] if one["category_id"] == number],
    }
    (tmp_path / "alone.json").write_text(json.dumps(alone))
    expected = coco_box_metrics(tmp_path / "alone.json", [d for d in detections if d["category_id"] == number])["AP"]
    assert 0 < by_class[alone["categories"][0]["name"]] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("library", [hotcoco, None])
def test_a_class_that_is_not_found_has_ap_0_and_one_without_an_object_none(library):
    box = {"bbox": [10, 10, 30, 30], "image_id": 1}
    content = {
        "images": [{"id": 1, "width": 64, "height": 64}],
        "categories": [{"id": number, "name": name} for number, name in ((7, "found"), (2, "missed"), (5, "absent"))],
        "annotations": [{**box, "id": n, "category_id": n, "area": 900, "iscrowd": 0} for n in (7, 2)],
    }
    detections = [{**box, "category_id": number, "score": 0.9} for number in (7, 5)]
    evaluation = evaluated(content, detections, [(0, 1e10)], library=library)
    assert category_figures(evaluation) == pytest.approx({2: 0, 5: -1, 7: 1})


@pytest.mark.slow
@pytest.mark.parametrize("library", [hotcoco, None])
def test_an_annotation_may_have_the_id_0(truth, library, tmp_path):
    content = json.loads(truth.read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number
    path = tmp_path / "zero.json"
    path.write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(path))
    ranges = (0, 1e10), (0, COCO_AREAS[0]), COCO_AREAS, (COCO_AREAS[1], 1e10)
    for given in (path, content, loaded):
        assert figures(evaluated(given, perfect(content), ranges, library=library))[0] == 1


def test_a_loaded_truth_serves_as_well(truth):
    detections = perturbed(json.loads(truth.read_text()), 2)
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(truth))
    first = coco_box_metrics(loaded, detections)
    assert first == pytest.approx(coco_box_metrics(truth, detections), nan_ok=True)
    assert first == pytest.approx(coco_box_metrics(loaded, detections), nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_same_as_mmdet(truth, seed):
    content = json.loads(truth.read_text())
    detections = perturbed(content, seed)
    ours = measured(CocoBoxes(str(truth)), content, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        metric = CocoMetric(ann_file=str(truth), metric=["bbox"])
        metric.metric_items = None
    theirs = measured(metric, content, detections)
    assert 5 < ours["AP"] < 95
    for name, key in MMDET_NAMES.items():
        key = f"coco/{key}"
        if key not in theirs:  # mmdet leaves recall out by default
            assert name == "AR100"
        elif math.isnan(ours[name]):
            assert theirs[key] == -1
        else:
            assert ours[name] / 100 == pytest.approx(theirs[key], abs=5.1e-4)


def test_metric_is_the_function_of_its_detections(truth, tmp_path):
    content = json.loads(truth.read_text())
    detections = perturbed(content, 5)
    out = tmp_path / "deep" / "detections.json"
    figures = measured(CocoBoxes(str(truth), areas=(100, 2000), out_file=str(out)), content, detections)
    assert figures == pytest.approx(coco_box_metrics(truth, detections, areas=(100, 2000)), abs=1e-9, nan_ok=True)
    written = json.loads(out.read_text())
    assert len(written) == len(detections)
    order = {i["id"]: n for n, i in enumerate(content["images"])}
    for ours, given in zip(written, sorted(detections, key=lambda d: order[d["image_id"]]), strict=True):
        assert (ours["image_id"], ours["category_id"], ours["score"]) == (
            given["image_id"],
            given["category_id"],
            given["score"],
        )
        assert ours["bbox"] == pytest.approx(given["bbox"], abs=1.1e-3)


def test_classes_in_another_order(tiny_data):
    """Labels follow the data set's classes; COCO's category ids follow the file."""
    content = json.loads(Path(tiny_data.train_annotations).read_text())
    for c in content["categories"]:
        c["id"] = 10 * c["id"]
    for a in content["annotations"]:
        a["category_id"] *= 10
    truth = Path(tiny_data.train_annotations).parent / "times_ten.json"
    truth.write_text(json.dumps(content))
    figures = measured(CocoBoxes(str(truth), areas=MINI_AREAS), content, perfect(content))
    assert figures["AP"] == pytest.approx(100)


def test_image_ids(truth):
    """Only the chosen images count: the same as a file that holds no others."""
    content = json.loads(truth.read_text())
    detections = perturbed(content, 6)
    ids = [i["id"] for i in content["images"]][1:8]
    figures = coco_box_metrics(truth, detections, ids)
    alone = COCO()
    alone.dataset = {
        **content,
        "images": [i for i in content["images"] if i["id"] in ids],
        "annotations": [a for a in content["annotations"] if a["image_id"] in ids],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        alone.createIndex()
    expected = coco_box_metrics(alone, [d for d in detections if d["image_id"] in ids])
    assert figures == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert figures["AP"] != pytest.approx(coco_box_metrics(truth, detections)["AP"])


def test_metric_counts_the_images_it_saw(tiny_data):
    truth = Path(tiny_data.train_annotations)
    content = json.loads(truth.read_text())
    few = {**content, "images": content["images"][:4]}
    figures = measured(CocoBoxes(str(truth)), few, perfect(content))
    assert figures["AP"] == pytest.approx(100), "the unseen images are not missed objects"
    assert coco_box_metrics(truth, [d for d in perfect(content) if d["image_id"] <= 4])["AP"] < 80


def test_nothing_found(truth):
    figures = coco_box_metrics(truth, [])
    known = {k: v for k, v in figures.items() if not math.isnan(v)}
    assert known == dict.fromkeys(known, 0.0)
    assert {"AP", "AP50", "AP75", "AR100"} <= known.keys()
    content = json.loads(truth.read_text())
    assert measured(CocoBoxes(str(truth)), content, [])["AP"] == 0.0


def test_area_bounds_shift_the_figures(tiny_data):
    truth = Path(tiny_data.train_annotations)
    content = json.loads(truth.read_text())
    large = {a["id"] for a in content["annotations"] if a["area"] >= TINY_AREAS[1] and not a["iscrowd"]}
    content["annotations"] = [{**a, "iscrowd": int(a["id"] not in large)} for a in content["annotations"]]
    found = perfect(content)
    assert 3 <= len(found) < len(content["annotations"]) / 2
    figures = coco_box_metrics(truth, found, areas=TINY_AREAS)
    assert figures["AP_small"] == figures["AP_medium"] == 0
    assert figures["AP_large"] == pytest.approx(100)
    other = coco_box_metrics(truth, found, areas=COCO_AREAS)
    assert other["AP"] == figures["AP"]
    assert 0 < other["AP_small"] < 100
    # with every object small there is no medium and no large one
    content = json.loads(truth.read_text())
    everything = coco_box_metrics(truth, perfect(content), areas=(1e6, 1e7))
    assert everything["AP_small"] == pytest.approx(100)
    assert math.isnan(everything["AP_medium"])
    assert math.isnan(everything["AP_large"])
