"""A made-up results tree for the tests of the report: figures known by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import yaml
from PIL import Image

from benchmark import report
from benchmark.evidence.intervals import bootstrap_file, scorer
from benchmark.evidence.record import Record
from benchmark.evidence.records import load_records

#: run -> (method, inherit, AP with seed 0, AP with seed 1)
RUNS = {
    "plain": ("none", "none", 20.0, 22.0),
    "inherit": ("none", "head+neck", 24.0, 24.0),
    "pgd": ("pgd", "head+neck", 27.0, 29.0),
}


#: method -> (title, place)
METHODS = {"none": ("none", "none"), "pgd": ("PGD", "key regions")}


def record(run: str, seed: int, method: str, inherit: str, ap: float) -> dict:
    """The content of a record on a made-up pair."""
    teacher = run.startswith("teacher")
    title, place = METHODS[method]
    accuracy = {"AP": ap, "AP50": 1.5 * ap, "AP75": ap + 1, "AP_small": None, "AP_medium": ap, "AP_large": ap}
    return asdict(
        Record(
            run=run,
            seed=seed,
            pair="gfl",
            role="teacher" if teacher else "student",
            method=method,
            method_title=title,
            method_place=place,
            settings={"topk": 9} if method == "pgd" else {},
            inherit=inherit,
            dataset="mini",
            metric="coco",
            detector="gfl",
            backbone="r34" if teacher else "r18",
            config="gfl.py",
            config_digest="abcd",
            options={},
            iterations=400,
            batch_size=16,
            effective_batch=16,
            lr=0.001,
            base_lr=0.001,
            optimizer="AdamW(lr=0.001)",
            schedule="LinearLR(end=40)",
            accuracy={**accuracy, "AR100": 50.0},
            train_seconds=90.0 + 60 * seed,
            eval_seconds=3.0,
            resumed=False,
            peak_memory_mb=100,
            parameters=1234567,
            extra_parameters=0,
            checkpoint_sha256=f"{seed:064x}",
            environment={"torch": "2.0", "cpu": "a <fast> one", "gpu": None},
        )
    )


def key_of(content: dict) -> str:
    """Names a record's file."""
    return content["run"] if content["role"] == "teacher" else f"{content['run']}-{content['seed']}"


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_run(root: Path, content: dict) -> None:
    key = key_of(content)
    write_json(root / "results" / "runs" / f"{key}.json", content)
    losses = "".join(f"{s},{5 / s},0.001,{5 / s},\n" for s in range(10, 110, 10))
    ap = content["accuracy"]["AP"]
    curve = root / "results" / "curves" / f"{key}.csv"
    curve.parent.mkdir(exist_ok=True)
    curve.write_text(f"step,loss,lr,loss_cls,AP\n{losses}50,,,,{ap / 2}\n100,,,,{ap}\n")
    found = [{"image_id": i, "category_id": 1, "bbox": [4, 4, 20, 20], "score": 0.9} for i in (1, 2)]
    write_json(root / "work" / "evaluate" / key / "detections.json", found)


def write_params(root: Path, pairs: list[str], runs: list[str], seeds: int, dataset: str = "mini") -> None:
    """Settings that the records of these runs are of."""
    data = {pair: "crowd" if pair == "ddod" else dataset for pair in pairs}
    both = {"teacher": {"config": "gfl.py"}, "student": {"config": "gfl.py"}}
    content = {
        "datasets": {name: {} if name == "minicoco" else {"kind": "coco", "root": "."} for name in data.values()},
        "pairs": {pair: {"dataset": name, **both} for pair, name in data.items()},
        "seeds": list(range(seeds)),
        "runs": {},
    }
    for run in runs:
        method, inherit, *_ = (RUNS | CROWD_RUNS)[run]
        own = {"pair": "ddod" if run in CROWD_RUNS else "gfl", "method": method, "inherit": inherit}
        content["runs"][run] = {key: value for key, value in own.items() if value != "none"}
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def build(root: Path, seeds: int = 2) -> None:
    """The inputs of a report: a teacher, three runs with two seeds, two small pictures."""
    write_params(root, ["gfl"], list(RUNS), seeds)
    write_run(root, record("teacher-gfl", 0, "none", "none", 40.0))
    for run, (method, inherit, *aps) in RUNS.items():
        for seed, ap in enumerate(aps[:seeds]):
            write_run(root, record(run, seed, method, inherit, ap))
    folder = root / "work" / "dataset" / "mini"
    places = [(i, [4 + 12 * k, 4, 20, 20]) for i in (1, 2) for k in range(3)]
    annotations = [
        {"id": n, "image_id": i, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
        for n, (i, box) in enumerate(places, 1)
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in (1, 2)]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "fish"}]}
    write_json(folder / "val.json", coco)
    (folder / "val").mkdir(parents=True, exist_ok=True)
    for image in images:
        Image.new("RGB", (64, 64), "teal").save(folder / "val" / image["file_name"])
    paths = {"val_images": "work/dataset/mini/val", "val_annotations": "work/dataset/mini/val.json"}
    write_json(folder / "dataset.json", {**paths, "classes": ["fish"], "areas": [400, 2025]})


#: run -> (method, inherit, (AP, MR, JI) with seed 0, the same with seed 1)
CROWD_RUNS = {
    "crowd-plain": ("none", "none", (70.0, 60.0, 62.0), (72.0, 58.0, 63.0)),
    "crowd-pgd": ("pgd", "none", (73.0, 57.0, 65.0), (77.0, 53.0, 66.0)),
}
PEOPLE = {"tag": "person", "fbox": [4, 4, 20, 40]}, {"tag": "person", "fbox": [30, 4, 20, 40]}
IGNORED = {"tag": "mask", "fbox": [50, 4, 12, 12], "extra": {"ignore": 1}}


def add_crowd(root: Path, seeds: int = 2) -> None:
    """A second pair, on crowds: PGD finds both persons of each of three pictures, the others one."""
    params = yaml.safe_load((root / "params.yaml").read_text()) if (root / "params.yaml").exists() else {}
    pairs, runs = params.get("pairs", {}), params.get("runs", {})
    write_params(root, [*pairs, "ddod"], [*runs, *CROWD_RUNS], seeds)
    write_crowd_run(root, "teacher-ddod", 0, "none", "none", (80.0, 50.0, 70.0))
    for run, (method, inherit, *figures) in CROWD_RUNS.items():
        for seed, own in enumerate(figures[:seeds]):
            write_crowd_run(root, run, seed, method, inherit, own)
    folder = root / "work" / "dataset" / "crowd"
    (folder / "val").mkdir(parents=True)
    names = [f"27,{i}" for i in range(3)]
    lines = [
        {"ID": name, "gtboxes": [*PEOPLE, *[PEOPLE[0] | {"fbox": [4, 30, 9, 20]}] * (i == 0), IGNORED]}
        for i, name in enumerate(names)
    ]
    (folder / "annotation_val.odgt").write_text("".join(json.dumps(line) + "\n" for line in lines))
    coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for i, (name, line) in enumerate(zip(names, lines, strict=True), 1):
        Image.new("RGB", (64, 48), "teal").save(folder / "val" / f"{name}.png")
        coco["images"].append({"id": i, "file_name": f"{name}.png", "width": 64, "height": 48})
        coco["annotations"] += [
            {
                "id": 10 * i + k,
                "image_id": i,
                "category_id": 1,
                "bbox": box["fbox"],
                "iscrowd": int(box["tag"] == "mask"),
            }
            for k, box in enumerate(line["gtboxes"])
        ]
    write_json(folder / "val.json", coco)
    paths = {"val_images": "work/dataset/crowd/val", "val_annotations": "work/dataset/crowd/val.json"}
    rest = {"classes": ["person"], "areas": [1024, 9216], "metric": "crowdhuman"}
    write_json(folder / "dataset.json", {**paths, **rest, "val_odgt": "work/dataset/crowd/annotation_val.odgt"})


def write_crowd_run(root: Path, run: str, seed: int, method: str, inherit: str, figures: tuple) -> None:
    content = record(run, seed, method, inherit, figures[0])
    content["accuracy"] = dict(zip(("AP", "MR", "JI"), figures, strict=True))
    content |= {"pair": "ddod", "dataset": "crowd", "detector": "ddod", "metric": "crowdhuman"}
    write_run(root, content)
    found = PEOPLE if method == "pgd" else PEOPLE[:1]
    boxes = [[*person["fbox"], 0.9 - 0.1 * k] for k, person in enumerate(found)]
    entries = [{"ID": f"27,{i}", "width": 64, "height": 48, "boxes": boxes} for i in range(3)]
    write_json(root / "work" / "evaluate" / key_of(content) / "detections.json", entries)


def resample(root: Path) -> None:
    """What `evaluate` leaves of each run's detections."""
    for path in (root / "results" / "runs").iterdir():
        content = json.loads(path.read_text())
        info = json.loads((root / "work" / "dataset" / content["dataset"] / "dataset.json").read_text())
        odgt = info.get("val_odgt")
        score = scorer(root / info["val_annotations"], odgt and root / odgt)
        found = json.loads((root / "work" / "evaluate" / path.stem / "detections.json").read_text())
        out = bootstrap_file(root / "results", path.stem)
        out.parent.mkdir(exist_ok=True)
        score(found).to_csv(out, index=False)


def run_report(root: Path) -> None:
    report.main([f"--{n}={root / n}" for n in ("results", "work")] + [f"--params={root / 'params.yaml'}"])


def load(root: Path) -> pd.DataFrame:
    return load_records(root / "results", root / "params.yaml")
