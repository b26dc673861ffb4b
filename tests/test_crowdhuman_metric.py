"""CrowdHuman's AP, MR^-2 and JI: released values, a slow second implementation, invariances, errors, mmdet's metric."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import GOLDEN
from mmdet.evaluation.metrics import crowdhuman_metric as mmdet_module
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from oracles import crowdhuman as oracle
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from pgd.evaluation import CrowdHumanBoxes, CrowdHumanError, crowdhuman
from pgd.evaluation.odgt import check_detections, read_detections, read_odgt

RELEASED = GOLDEN / "crowdhuman"
TRUTH = RELEASED / "annotation_val.odgt"
EXPECTED = {k: v for k, v in json.loads((RELEASED / "expected.json").read_text()).items() if k in ("AP", "MR", "JI")}
PERSON = {"tag": "person", "extra": {"box_id": 1}}
REGION = {"tag": "person", "extra": {"ignore": 1}}
MASK = {"tag": "mask"}
TOY = [
    {
        "size": (200, 100),
        "truth": [([10, 10, 40, 80], PERSON), ([150, 0, 50, 100], REGION), ([100, 10, 40, 80], PERSON)],
        "found": [([100, 30, 40, 60], 0.6), ([10, 10, 40, 80], 0.9), ([12, 10, 40, 80], 0.8), ([160, 10, 30, 60], 0.7)],
    },
    {
        "size": (200, 100),
        "truth": [([20, 20, 40, 60], PERSON), ([100, 20, 40, 60], MASK)],
        "found": [([20, 20, 40, 40], 0.5), ([70, 0, 30, 30], 0.95), ([100, 20, 40, 60], 0.3)],
    },
]


class Files:
    """Scenes as CrowdHuman's files."""

    def __init__(self, folder: Path, images: list[dict], names: list[str] | None = None) -> None:
        self.path = folder / "annotation.odgt"
        names = names or [f"{i:03d},ab{i}" for i in range(len(images))]
        lines = [
            {"ID": name, "gtboxes": [{**kind, "fbox": box, "hbox": box} for box, kind in image["truth"]]}
            for name, image in zip(names, images, strict=True)
        ]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.detections = [entry(name, image) for name, image in zip(names, images, strict=True)]

    def evaluate(self) -> dict[str, float]:
        return crowdhuman.evaluate(self.path, self.detections)

    def jaccard(self) -> np.ndarray:
        truths, found = read_odgt(self.path), dict(check_detections(self.detections))
        return crowdhuman.jaccard_by_score(
            [crowdhuman.overlaps(truths[name].without_empty(), found[name]) for name in truths]
        )


@pytest.fixture
def files(tmp_path):
    return lambda *args: Files(tmp_path, *args)


def entry(name: str, image: dict) -> dict:
    """Of a detections file."""
    width, height = image["size"]
    return {"ID": name, "width": width, "height": height, "boxes": [[*box, score] for box, score in image["found"]]}


def plain(images: list[dict]) -> list[dict]:
    """As the slow implementation takes them."""
    return [
        {**i, "truth": [(box, kind["tag"], kind.get("extra", {}).get("ignore", 0)) for box, kind in i["truth"]]}
        for i in images
    ]


def random_scenes(seed: int, distinct: bool = False) -> list[dict]:
    """Crowds across the borders, some boxes without an area, detections near persons, regions and nothing.

    Scores have two decimals, so that many are equal, unless they have to be distinct.
    """
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(rng.integers(3, 7)):
        size = rng.integers((60, 40), (160, 120)).tolist()
        boxes = np.concatenate((rng.uniform(-20, 0.9 * max(size), (9, 2)), rng.uniform(10, 60, (9, 2))), axis=1)
        boxes[1:4, :2] = boxes[0, :2] + rng.normal(0, 8, (3, 2))
        boxes = np.rint(boxes[: rng.integers(0, 10)])
        boxes[rng.uniform(size=boxes.shape) < 0.02] *= -1
        boxes[rng.uniform(size=len(boxes)) < 0.06, 2] = 0
        kinds = rng.choice(
            [PERSON, PERSON, PERSON, {"tag": "person", "extra": {"ignore": 0}}, REGION, MASK], len(boxes)
        )
        truth = list(zip(boxes.tolist(), kinds.tolist(), strict=True))
        found = []
        for _ in range(rng.integers(0, 12)):
            near = boxes[rng.integers(len(boxes))] if len(boxes) and rng.random() < 0.8 else rng.uniform(5, 60, 4)
            box = near + rng.normal(0, 0.1, 4) * np.tile(near[2:], 2)
            found.append((box.round(1).tolist(), round(rng.random(), 12 if distinct else 2)))
        scenes.append({"size": size, "truth": truth, "found": found})
    return scenes


def samples(detections: list[dict]) -> list[DetDataSample]:
    """What a detector predicts, in single precision."""
    out = []
    for d in detections:
        rows = torch.tensor(d["boxes"], dtype=torch.float64).reshape(-1, 5)
        predicted = InstanceData(
            bboxes=torch.cat((rows[:, :2], rows[:, :2] + rows[:, 2:4]), dim=1).float(),
            scores=rows[:, 4].float(),
            labels=torch.zeros(len(rows), dtype=torch.long),
        )
        sample = DetDataSample(
            metainfo={
                "img_path": f"/data/CrowdHuman.v1/{d['ID']}.jpg",
                "img_id": d["ID"],
                "ori_shape": (d["height"], d["width"]),
                "img_shape": (800, 800),
            }
        )
        sample.pred_instances = predicted
        out.append(sample)
    return out


def measured(metric, predicted: list[DetDataSample], batch: int = 7) -> dict[str, float]:
    """What mmengine's evaluator says."""
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {"classes": ("person",)}
    for start in range(0, len(predicted), batch):
        evaluator.process(predicted[start : start + batch])
    return evaluator.evaluate(len(predicted))


def released_detections() -> list[dict]:
    return read_detections(RELEASED / "detections.json")


def test_as_released():
    assert crowdhuman.evaluate(TRUTH, released_detections()) == pytest.approx(EXPECTED, abs=1e-9)


def test_toy_set(files):
    toy = files(TOY)
    assert toy.evaluate() == pytest.approx({"AP": 73 / 180, "MR": (2 / 3) ** (2 / 9), "JI": 7 / 12}, abs=1e-6)
    by_score = [7 / 12] * 5 + [1 / 3, 1 / 6, 1 / 6, 1 / 4, 0]
    assert toy.jaccard() == pytest.approx(by_score, abs=1e-6)
    assert oracle.jaccard(plain(TOY)) == pytest.approx(by_score, abs=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_same_as_the_rules_one_by_one(files, seed):
    scenes = random_scenes(seed)
    scene_files, literal = files(scenes), plain(scenes)
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
def test_order_is_of_no_matter(files, seed):
    rng = np.random.default_rng(seed)
    scenes = random_scenes(seed, distinct=True)
    names = [f"{i},x" for i in range(len(scenes))]
    before = files(scenes, names)
    expected = before.evaluate()
    assert 0 < expected["AP"] < 1 and 0 < expected["JI"] < 1
    shuffled = rng.permutation(len(scenes))
    before.detections = [before.detections[i] for i in shuffled]
    assert before.evaluate() == expected
    for scene in scenes:
        rng.shuffle(scene["found"])
        rng.shuffle(scene["truth"])
    after = files([scenes[i] for i in shuffled], [names[i] for i in shuffled])
    assert after.evaluate() == pytest.approx(expected, abs=1e-12)


def test_equal_scores_follow_the_annotations_order(files):
    """A hit before a false alarm of the same score, whichever entry comes first."""
    hit = {"size": (100, 100), "truth": [([10, 10, 20, 40], PERSON)] * 2, "found": [([10, 10, 20, 40], 0.5)]}
    alarm = {"size": (100, 100), "truth": [], "found": [([60, 10, 20, 40], 0.5)]}
    first, last = files([hit, alarm, hit]).evaluate(), files([alarm, hit, hit]).evaluate()
    assert first["AP"] == pytest.approx(0.25 * (1 / 2 + 2 / 3) / 2)
    assert last["AP"] == pytest.approx(0.25 * ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2))
    turned = files([hit, alarm, hit])
    turned.detections.reverse()
    assert turned.evaluate() == first


def test_a_perfect_detector(files):
    """The curve starts at its first point: that much the released AP leaves out. JI divides by k + 1e-6."""
    truth = [([10.0, 10, 20, 40], PERSON), ([40, 10, 20, 40], PERSON), ([70, 0, 30, 90], MASK)]
    found = [([10.0, 10, 20, 40], 0.99), ([40, 10, 20, 40], 0.95)]
    figures = files([{"size": (100, 100), "truth": truth, "found": found}] * 3).evaluate()
    assert figures["AP"] == pytest.approx(1 - 1 / 6)
    assert figures["MR"] == 0
    assert figures["JI"] == pytest.approx(2 / (2 + 1e-6), abs=1e-15)
    many = [{"size": (100, 100), "truth": truth, "found": found}] * 500
    assert files(many).evaluate() == pytest.approx({"AP": 1, "MR": 0, "JI": 1}, abs=1.1e-3)


def test_boxes_without_an_area(files):
    """They are persons not found for AP and MR; JI does not know them."""
    image = {"size": (100, 100), "truth": [([10, 10, 20, 40], PERSON)], "found": [([10, 10, 20, 40], 0.95)] * 2}
    more = {**image, "truth": [([50, 50, 0, 10], PERSON), *image["truth"], ([50, 50, 10, 0], PERSON)]}
    bare, full = files([image] * 2).evaluate(), files([more] * 2).evaluate()
    assert full["JI"] == bare["JI"] == pytest.approx(0.5, abs=1e-6)
    assert full["AP"] == pytest.approx(bare["AP"] / 3)
    assert bare["MR"] < full["MR"]


@pytest.mark.parametrize(
    "truth, found, expected",
    [
        ([], [], {"AP": math.nan, "MR": math.nan, "JI": math.nan}),
        ([], [([10, 10, 20, 40], 0.5)], {"AP": math.nan, "MR": math.nan, "JI": 0}),
        ([([10, 10, 20, 40], PERSON)], [], {"AP": 0, "MR": 1, "JI": 0}),
        ([([10, 10, 20, 40], MASK)], [], {"AP": math.nan, "MR": math.nan, "JI": math.nan}),
        ([([10, 10, 20, 40], MASK)], [([10, 10, 20, 40], 0.9)], {"AP": math.nan, "MR": math.nan, "JI": math.nan}),
        ([([10, 10, 20, 40], REGION)], [([60, 10, 20, 40], 0.9)], {"AP": math.nan, "MR": math.nan, "JI": 0}),
        # all detections dropped: as if there were none
        ([([10, 10, 20, 40], PERSON), ([50, 0, 50, 99], MASK)], [([60, 10, 20, 40], 0.9)], {"AP": 0, "MR": 1, "JI": 0}),
    ],
    ids=["nothing", "no truth", "no detections", "regions", "found region", "regions missed", "all dropped"],
)
@pytest.mark.filterwarnings("error")
def test_degenerate(files, truth, found, expected):
    scene = {"size": (100, 100), "truth": truth, "found": found}
    assert files([scene, scene]).evaluate() == pytest.approx(expected, nan_ok=True)
    # beside it, an ordinary image that is all there is to count, or halves what there is
    person = {"size": (100, 100), "truth": [([10, 10, 20, 40], PERSON)], "found": [([10, 10, 20, 40], 0.95)]}
    both = files([scene, person]).evaluate()["JI"]
    assert both == pytest.approx(1 if math.isnan(expected["JI"]) else 0.5 if not both > 0.9 else 1, abs=1e-6)


def lines(*texts: str) -> str:
    return "\n".join(texts)


GOOD = '{"ID": "a,1", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3, 4]}]}'


@pytest.mark.parametrize(
    "text, error",
    [
        (lines(GOOD, "", '{"ID": "b", "gtbox'), r"line 3: no complete JSON .*cut off"),
        (lines(GOOD, GOOD), r"line 2: 'a,1' has been on line 1"),
        (lines("[1]"), r"line 1: not an image of CrowdHuman; a line is"),
        (lines(GOOD, '{"gtboxes": []}'), r"line 2: no 'ID'"),
        (lines('{"ID": 7, "gtboxes": []}'), r"line 1: ID 7 is no text"),
        (lines('{"ID": "b"}'), r"line 1: no 'gtboxes'"),
        (lines('{"ID": "b", "gtboxes": [{"tag": "person"}]}'), r"line 1: no 'fbox'"),
        (lines('{"ID": "b", "gtboxes": [{"fbox": [1, 2, 3, 4]}]}'), r"line 1: no 'tag'"),
        (lines('{"ID": "b", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3]}]}'), r"line 1: fbox: not rows of 4 num"),
        (lines('{"ID": "b", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3, NaN]}]}'), r"line 1: fbox: .*finite"),
        (lines('{"ID": "b", "gtboxes": [{"tag": "x", "fbox": [1, 2, 3, 4], "extra": 3}]}'), r"line 1: not an image"),
        ("\n", r"no image in it"),
    ],
)
def test_broken_annotations(tmp_path, text, error):
    path = tmp_path / "broken.odgt"
    path.write_text(text)
    with pytest.raises(CrowdHumanError, match=error) as caught:
        read_odgt(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def without(key: str):
    return lambda found: [{k: v for k, v in d.items() if k != key} for d in found]


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda found: found + found[:1], r"'000,ab0' are there twice \(entry 3\)"),
        (lambda found: [*found, {**found[0], "ID": "zzz"}], r"'zzz': not in the annotations; the ID is the stem"),
        (lambda found: found[1:], r"no detections of '000,ab0'; .*empty list of boxes"),
        (lambda found: [], r"no detections of '000,ab0' and 1 more"),
        (lambda found: [{**found[0], "boxes": [[1, 2, 3, 4, math.nan]]}], r"'000,ab0': not all numbers are finite"),
        (lambda found: [{**found[0], "boxes": [[1, 2, math.inf, 4, 0.5]]}], r"'000,ab0': not all numbers are finite"),
        (lambda found: [{**found[0], "boxes": [[1, 2, 3, 0.5]]}], r"'000,ab0': not rows of 5 numbers"),
        (lambda found: [{**found[0], "boxes": [[1, 2, 3, 4, 0.5], [1]]}], r"'000,ab0': not rows of 5 numbers"),
        (lambda found: [{**found[0], "boxes": [{"box": 1}]}], r"'000,ab0': not rows of 5 numbers"),
        (lambda found: [{**found[0], "width": 0}], r"'000,ab0': 0 x 100 is no size"),
        (lambda found: [{**found[0], "height": "tall"}], r"'000,ab0': not rows of 2 numbers"),
        (without("height"), r"entry 1: needs ID, width, height, boxes and nothing else"),
        (lambda found: [{**found[0], "dtboxes": []}], r"entry 1: .* it has .*dtboxes"),
        (lambda found: [{**found[0], "ID": 7}], r"entry 1: ID 7 is no text"),
        (lambda found: ["a"], r"entry 1: needs ID"),
    ],
)
def test_broken_detections(files, change, error):
    toy = files(TOY)
    toy.detections = change(toy.detections)
    with pytest.raises(CrowdHumanError, match=error) as caught:
        toy.evaluate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text, error", [('[{"ID": "a", "wid', "no complete JSON .*cut off"), ("{}", "not a list of")])
def test_broken_detections_file(tmp_path, text, error):
    path = tmp_path / "detections.json"
    path.write_text(text)
    with pytest.raises(CrowdHumanError, match=error):
        read_detections(path)


def test_subset_is_a_file_of_these_images(files, tmp_path):
    scenes = random_scenes(7)
    whole = files(scenes)
    chosen = [0, 2]
    part = [whole.detections[i] for i in chosen]
    figures = crowdhuman.evaluate(whole.path, part, subset=True)
    alone = files([scenes[i] for i in chosen], [d["ID"] for d in part])
    assert figures == alone.evaluate()
    assert figures != files(scenes).evaluate()
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


def test_command(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pgd.evaluation", *map(str, arguments)])
        runpy.run_module("pgd.evaluation", run_name="__main__")

    run(TRUTH, RELEASED / "detections.json")
    assert capsys.readouterr().out == "AP 49.482  MR 88.639  JI 47.375\n"
    part = tmp_path / "part.json"
    part.write_text(json.dumps(released_detections()[:9]))
    with pytest.raises(SystemExit, match="error: no detections of '.*' and 30 more"):
        run(TRUTH, part)
    run("--subset", TRUTH, part)
    assert capsys.readouterr().out.startswith("AP ")
    with pytest.raises(SystemExit, match="error: .*No such file"):
        run(TRUTH, tmp_path / "none.json")


class InPlace:
    """multiprocessing.Process in this process; counts its starts."""

    starts = 0

    def __init__(self, target, args) -> None:
        self.target, self.args = target, args

    def start(self) -> None:
        InPlace.starts += 1
        self.target(*self.args)

    def join(self) -> None:
        pass


@pytest.fixture
def mmdet(monkeypatch):
    """mmdet's metric of some detections: mAP, mMR, JI."""
    monkeypatch.setattr(mmdet_module, "Process", InPlace)
    monkeypatch.setattr(InPlace, "starts", 0)

    def run(detections: list[dict], figures: tuple[str, ...] = ("AP", "MR", "JI"), path: Path = TRUTH) -> list[float]:
        metric = mmdet_module.CrowdHumanMetric(str(path), metric=list(figures))
        return list(measured(metric, samples(detections)).values())

    return run


def test_mmdet_agrees_but_for_the_matching_of_ji(mmdet, monkeypatch):
    ap, mr, ji = mmdet(released_detections())
    assert InPlace.starts == 100
    assert (ap, mr) == pytest.approx((EXPECTED["AP"], EXPECTED["MR"]), abs=5.1e-5)
    assert ji == 0.4745 and EXPECTED["JI"] == pytest.approx(0.4738, abs=5.1e-5)

    def most_pairs(iou: np.ndarray, maximize: bool) -> tuple[np.ndarray, np.ndarray]:
        person = maximum_bipartite_matching(csr_matrix(iou), perm_type="column")
        return np.nonzero(person >= 0)[0], person[person >= 0]

    monkeypatch.setattr(crowdhuman, "linear_sum_assignment", most_pairs)
    assert crowdhuman.evaluate(TRUTH, released_detections())["JI"] == pytest.approx(ji, abs=5.1e-5)


def test_mmdet_pairs_by_place(mmdet):
    found = released_detections()
    few = crowdhuman.evaluate(TRUTH, found[:10], subset=True)
    assert mmdet(found[:10], ("AP",)) == pytest.approx([few["AP"]], abs=5.1e-5), (
        "the rest of the file left out silently"
    )
    stranger = {"ID": "nobody", "width": 99, "height": 99, "boxes": [[1, 1, 9, 9, 0.9]]}
    assert mmdet([*found, stranger], ("AP",)) == pytest.approx([EXPECTED["AP"]], abs=5.1e-5)
    with pytest.raises(AssertionError, match="shuffle"):
        mmdet(found[::-1], ("AP",))


@pytest.mark.filterwarnings("ignore")
def test_mmdet_elsewhere(mmdet, files):
    assert math.isnan(mmdet([{**d, "boxes": []} for d in released_detections()], ("MR",))[0])
    person, flat = ([10, 10, 20, 40], PERSON), ([50, 50, 0, 10], PERSON)
    scene = files([{"size": (100, 100), "truth": [person, flat], "found": [([10, 10, 20, 40], 0.95)]}])
    assert mmdet(scene.detections, ("JI",), scene.path) == pytest.approx([0.5])
    assert scene.evaluate()["JI"] == pytest.approx(1, abs=1e-6)
    ours = scene.evaluate()["AP"]
    assert ours == mmdet(scene.detections, ("AP",), scene.path)[0] == 0, "the first detection alone has no area"


def test_speed_comparison(mmdet, tmp_path, monkeypatch):
    from benchmark import speed_crowdhuman as speed

    records, found = speed.crowd(images=12, detections=500, seed=3)
    assert len(records) == len(found) == 12 and sum(len(s["pred_instances"]["scores"]) for s in found) == 500
    path = tmp_path / "crowd.odgt"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    figures = speed.compare(str(path), found)
    assert all(0.1 < value < 0.99 for own in figures.values() for value in own.values())
    assert figures["mmdet"] == figures["mmdet, one process"]
    times = speed.measure(str(path), found, repeats=2)
    assert times.keys() == speed.VARIANTS.keys() and all(len(t) == 2 and min(t) > 0 for t in times.values())
    monkeypatch.setattr(crowdhuman, "OVERLAP", 0.6)
    with pytest.raises(speed.Disagreement, match="library: AP"):
        speed.compare(str(path), found)
