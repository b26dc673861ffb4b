"""CrowdHuman's AP, MR^-2 and JI: released values, a slow second implementation, invariances, the mmengine metric."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from support.crowd_scenes import (
    EXPECTED,
    MASK,
    PERSON,
    REGION,
    TOY,
    TRUTH,
    Files,
    measured,
    plain,
    random_scenes,
    released_detections,
    samples,
)
from support.oracles import crowdhuman as oracle

from pgd.evaluation import crowdhuman
from pgd.evaluation.crowdhuman import CrowdHumanBoxes
from pgd.evaluation.odgt import CrowdHumanError, read_detections


def test_as_released():
    assert crowdhuman.evaluate(TRUTH, released_detections()) == pytest.approx(EXPECTED, abs=1e-9)


def test_toy_set(tmp_path):
    toy = Files(tmp_path, TOY)
    assert toy.evaluate() == pytest.approx({"AP": 73 / 180, "MR": (2 / 3) ** (2 / 9), "JI": 7 / 12}, abs=1e-6)
    by_score = [7 / 12] * 5 + [1 / 3, 1 / 6, 1 / 6, 1 / 4, 0]
    assert toy.jaccard() == pytest.approx(by_score, abs=1e-6)
    assert oracle.jaccard(plain(TOY)) == pytest.approx(by_score, abs=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_same_as_the_rules_one_by_one(tmp_path, seed):
    scenes = random_scenes(seed)
    scene_files, literal = Files(tmp_path, scenes), plain(scenes)
    expected = {
        "AP": oracle.average_precision(literal),
        "MR": oracle.miss_rate(literal),
        "JI": max(oracle.jaccard(literal)),
    }
    assert scene_files.evaluate() == pytest.approx(expected, abs=1e-12)
    assert scene_files.jaccard() == pytest.approx(oracle.jaccard(literal), abs=1e-12, nan_ok=True)


def test_released_ap_and_mr_one_by_one():
    found = {d["ID"]: d for d in released_detections()}
    images = []
    for line in TRUTH.read_text().splitlines():
        record = json.loads(line)
        own = found[record["ID"]]
        images.append(
            {
                "size": (own["width"], own["height"]),
                "truth": [(b["fbox"], b) for b in record["gtboxes"]],
                "found": [(b[:4], b[4]) for b in own["boxes"]],
            }
        )
    assert oracle.average_precision(plain(images)) == pytest.approx(EXPECTED["AP"], abs=1e-9)
    assert oracle.miss_rate(plain(images)) == pytest.approx(EXPECTED["MR"], abs=1e-9)


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_order_is_of_no_matter(tmp_path, seed):
    rng = np.random.default_rng(seed)
    scenes = random_scenes(seed, distinct=True)
    names = [f"{i},x" for i in range(len(scenes))]
    before = Files(tmp_path, scenes, names)
    expected = before.evaluate()
    assert 0 < expected["AP"] < 1
    assert 0 < expected["JI"] < 1
    shuffled = rng.permutation(len(scenes))
    before.detections = [before.detections[i] for i in shuffled]
    assert before.evaluate() == expected
    for scene in scenes:
        rng.shuffle(scene["found"])
        rng.shuffle(scene["truth"])
    after = Files(tmp_path, [scenes[i] for i in shuffled], [names[i] for i in shuffled])
    assert after.evaluate() == pytest.approx(expected, abs=1e-12)


def test_equal_scores_follow_the_annotations_order(tmp_path):
    """A hit before a false alarm of the same score, whichever entry comes first."""
    hit = {"size": (100, 100), "truth": [([10, 10, 20, 40], PERSON)] * 2, "found": [([10, 10, 20, 40], 0.5)]}
    alarm = {"size": (100, 100), "truth": [], "found": [([60, 10, 20, 40], 0.5)]}
    first, last = Files(tmp_path, [hit, alarm, hit]).evaluate(), Files(tmp_path, [alarm, hit, hit]).evaluate()
    assert first["AP"] == pytest.approx(0.25 * (1 / 2 + 2 / 3) / 2)
    assert last["AP"] == pytest.approx(0.25 * ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2))
    turned = Files(tmp_path, [hit, alarm, hit])
    turned.detections.reverse()
    assert turned.evaluate() == first


def test_a_perfect_detector(tmp_path):
    """The curve starts at its first point: that much the released AP leaves out. JI divides by k + 1e-6."""
    truth = [([10.0, 10, 20, 40], PERSON), ([40, 10, 20, 40], PERSON), ([70, 0, 30, 90], MASK)]
    found = [([10.0, 10, 20, 40], 0.99), ([40, 10, 20, 40], 0.95)]
    figures = Files(tmp_path, [{"size": (100, 100), "truth": truth, "found": found}] * 3).evaluate()
    assert figures["AP"] == pytest.approx(1 - 1 / 6)
    assert figures["MR"] == 0
    assert figures["JI"] == pytest.approx(2 / (2 + 1e-6), abs=1e-15)
    many = [{"size": (100, 100), "truth": truth, "found": found}] * 500
    assert Files(tmp_path, many).evaluate() == pytest.approx({"AP": 1, "MR": 0, "JI": 1}, abs=1.1e-3)


def test_boxes_without_an_area(tmp_path):
    """They are persons not found for AP and MR; JI does not know them."""
    image = {"size": (100, 100), "truth": [([10, 10, 20, 40], PERSON)], "found": [([10, 10, 20, 40], 0.95)] * 2}
    more = {**image, "truth": [([50, 50, 0, 10], PERSON), *image["truth"], ([50, 50, 10, 0], PERSON)]}
    bare, full = Files(tmp_path, [image] * 2).evaluate(), Files(tmp_path, [more] * 2).evaluate()
    assert full["JI"] == bare["JI"] == pytest.approx(0.5, abs=1e-6)
    assert full["AP"] == pytest.approx(bare["AP"] / 3)
    assert bare["MR"] < full["MR"]


@pytest.mark.parametrize(
    "truth, found, expected, beside",
    [
        ([], [], {"AP": math.nan, "MR": math.nan, "JI": math.nan}, 1),
        ([], [([10, 10, 20, 40], 0.5)], {"AP": math.nan, "MR": math.nan, "JI": 0}, 1),
        ([([10, 10, 20, 40], PERSON)], [], {"AP": 0, "MR": 1, "JI": 0}, 0.5),
        ([([10, 10, 20, 40], MASK)], [], {"AP": math.nan, "MR": math.nan, "JI": math.nan}, 1),
        ([([10, 10, 20, 40], MASK)], [([10, 10, 20, 40], 0.9)], {"AP": math.nan, "MR": math.nan, "JI": math.nan}, 1),
        ([([10, 10, 20, 40], REGION)], [([60, 10, 20, 40], 0.9)], {"AP": math.nan, "MR": math.nan, "JI": 0}, 1),
        # all detections dropped: as if there were none
        (
            [([10, 10, 20, 40], PERSON), ([50, 0, 50, 99], MASK)],
            [([60, 10, 20, 40], 0.9)],
            {"AP": 0, "MR": 1, "JI": 0},
            0.5,
        ),
    ],
    ids=["nothing", "no truth", "no detections", "regions", "found region", "regions missed", "all dropped"],
)
@pytest.mark.filterwarnings("error")
def test_degenerate(tmp_path, truth, found, expected, beside):
    scene = {"size": (100, 100), "truth": truth, "found": found}
    assert Files(tmp_path, [scene, scene]).evaluate() == pytest.approx(expected, nan_ok=True)
    # with an image of JI 1: an image with nothing to count (at some threshold) does not enter the mean
    person = {"size": (100, 100), "truth": [([10, 10, 20, 40], PERSON)], "found": [([10, 10, 20, 40], 0.95)]}
    assert Files(tmp_path, [scene, person]).evaluate()["JI"] == pytest.approx(beside, abs=1.1e-6)


def test_subset_is_a_file_of_these_images(tmp_path):
    scenes = random_scenes(7)
    whole = Files(tmp_path, scenes)
    chosen = [0, 2]
    part = [whole.detections[i] for i in chosen]
    figures = crowdhuman.evaluate(whole.path, part, subset=True)
    alone = Files(tmp_path, [scenes[i] for i in chosen], [d["ID"] for d in part])
    assert figures == alone.evaluate()
    assert figures != Files(tmp_path, scenes).evaluate()
    with pytest.raises(CrowdHumanError, match="no image to evaluate"):
        crowdhuman.evaluate(alone.path, [], subset=True)


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_metric_is_the_function_of_its_detections(tmp_path, batch):
    """Single precision comes back as it was by the rounding."""
    out = tmp_path / "deep" / "detections.json"
    figures = measured(CrowdHumanBoxes(str(TRUTH), out_file=str(out)), samples(released_detections()), batch)
    assert figures == pytest.approx({k: 100 * v for k, v in EXPECTED.items()}, abs=1e-9)
    written = read_detections(out)
    assert written == released_detections()
    assert crowdhuman.evaluate(TRUTH, written) == pytest.approx(EXPECTED, abs=1e-9)


def test_metric_counts_the_images_it_saw():
    seen = released_detections()[30:4:-2]
    figures = measured(CrowdHumanBoxes(str(TRUTH), prefix="crowd"), samples(seen))
    expected = crowdhuman.evaluate(TRUTH, seen, subset=True)
    assert figures == pytest.approx({f"crowd/{k}": 100 * v for k, v in expected.items()}, abs=1e-9)
    assert expected["AP"] != pytest.approx(EXPECTED["AP"])


def test_metric_rounds_and_takes_label_0(tmp_path):
    name = released_detections()[0]["ID"]
    sample = samples([{"ID": name, "width": 640, "height": 480, "boxes": [[1.26, 2.24, 3.33, 4, 0.123456]] * 2}])[0]
    sample.pred_instances.labels[1] = 1
    out = tmp_path / "detections.json"
    measured(CrowdHumanBoxes(str(TRUTH), str(out)), [sample])
    assert read_detections(out) == [{"ID": name, "width": 640, "height": 480, "boxes": [[1.3, 2.2, 3.3, 4.0, 0.12346]]}]


def test_metric_without_detections():
    nothing = [{**d, "boxes": []} for d in released_detections()]
    assert measured(CrowdHumanBoxes(str(TRUTH)), samples(nothing)) == {"AP": 0, "MR": 100, "JI": 0}


def test_metric_says_at_once_what_is_unknown():
    stranger = samples([{"ID": "1066405,1b8000ef60354f", "width": 9, "height": 9, "boxes": []}])
    with pytest.raises(CrowdHumanError, match=r"no '1066405,1b8000ef60354f' in .*annotation_val.odgt"):
        measured(CrowdHumanBoxes(str(TRUTH)), stranger)
