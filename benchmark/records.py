"""What the runs left behind, as tables: records, curves, sample pictures.

Reads, aggregates and formats; plots nothing and writes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

TEACHER = "teacher"
METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100")
COSTS = ("train_seconds", "eval_seconds", "peak_memory_mb", "parameters", "extra_parameters")
ENVIRONMENT = (
    *("python", "torch", "torchvision", "mmdet", "mmengine", "mmcv", "numpy"),
    *("pycocotools", "platform", "cpu", "threads", "gpu", "git_revision"),
)
#: Runs that agree on these differ in the method alone, so that their difference may be called its gain.
FOOTING = ("pair", "dataset", "detector", "backbone", "iterations", "batch_size", "lr", "inherit")
REQUIRED = ("run", "seed", "role", "method", *FOOTING, *METRICS, *COSTS)

METHOD_NAMES = {
    "none": "none",
    "fitnet": "FitNet",
    "fgd": "FGD",
    "ld": "LD",
    "pgd": "PGD",
    "pgd_released": "PGD (released)",
}
MISSING = "\u2013"  # an en dash, in every table
MINUS = "\u2212"


class ReportError(RuntimeError):
    """Something the report needs is missing or unusable; the message is one line that names it."""


@dataclass(frozen=True)
class Box:
    """A box of a sample picture: ``[x, y, w, h]`` in pixels, class, and a score unless it is ground truth."""

    xywh: tuple[float, float, float, float]
    label: str
    score: float = math.nan
    crowd: bool = False


def read_json(path: Path) -> Any:
    """The content of a JSON file; :class:`ReportError` naming it when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from None


def expected_records(params: Path) -> list[str]:
    """The name of every record that ``params.yaml`` asks for, the teachers' first.

    The `plan` stage checks the file in depth; its loader imports mmdet, which a report has no use for.
    """
    try:
        content = yaml.safe_load(params.read_text(encoding="utf-8"))
        teachers = [f"{TEACHER}-{pair}" for pair in content["pairs"]]
        students = [f"{run}-{seed}" for run, seed in product(content["runs"], content.get("seeds", [0]))]
    except FileNotFoundError:
        raise ReportError(f"{params} is missing") from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        raise ReportError(f"{params} must hold mappings 'pairs' and 'runs' and a list 'seeds'") from None
    if not students:
        raise ReportError(f"{params} names no run or no seed")
    return teachers + students


def read_record(path: Path) -> dict[str, Any]:
    """One record, checked: it has all that tables need, AP is a number, and the file's name fits."""
    record = read_json(path)
    absent = [key for key in REQUIRED if key not in record]
    if absent:
        raise ReportError(f"{path} has no '{absent[0]}'")
    if key_of(record) != path.stem:
        raise ReportError(f"{path} holds another record, {key_of(record)}")
    if record["AP"] is None or not math.isfinite(record["AP"]):
        raise ReportError(f"{path} has no AP: it is {record['AP']}")
    return record


def load_records(results: Path, params: Path) -> pd.DataFrame:
    """One row a record, pair by pair: the teacher, then every run with every seed; all must be there.

    Records of runs that ``params.yaml`` does not name (renamed, left over) are not read.
    """
    paths = [results / "runs" / f"{name}.json" for name in expected_records(params)]
    found = [read_record(path) for path in paths]
    pairs = list(dict.fromkeys(record["pair"] for record in found))
    # dtype object keeps whole numbers whole in columns that other runs lack
    records = pd.DataFrame(sorted(found, key=lambda record: pairs.index(record["pair"])), dtype=object)
    return records.astype(dict.fromkeys((*METRICS, *COSTS), float))


def baseline_of(records: pd.DataFrame, run: str) -> str | None:
    """The run on the same footing without a method; None for the teacher, such a run, or without one."""
    first = records.drop_duplicates("run").set_index("run")
    own = first.loc[run]
    if own["role"] == TEACHER or own["method"] == "none":
        return None
    plain = first[(first["role"] != TEACHER) & (first["method"] == "none")]
    same = [name for name, row in plain.iterrows() if all(row[key] == own[key] for key in FOOTING)]
    if len(same) > 1:
        raise ReportError(f"run '{run}' has more than one baseline on the same footing: {', '.join(same)}")
    return same[0] if same else None


def aggregate(records: pd.DataFrame) -> pd.DataFrame:
    """One row a run: mean and standard deviation (n - 1) over seeds, and the gain over the baseline.

    The gain is paired: mean and deviation of the differences of runs with the same seed, which share
    initialisation and data order. A resumed training recorded its last part only and gives no time.
    """
    rows = []
    for run, group in records.groupby("run", sort=False):
        row = {key: group[key].iloc[0] for key in ("run", "role", "method", *FOOTING)}
        row["seeds"] = len(group)
        for metric in METRICS:
            row[metric], row[f"{metric}_sd"] = group[metric].mean(), group[metric].std()
        baseline = baseline_of(records, run)
        plain = records[records["run"] == baseline].set_index("seed")["AP"]
        gains = (group.set_index("seed")["AP"] - plain).dropna().astype(float)
        row |= {"baseline": baseline, "gain": gains.mean(), "gain_sd": gains.std()}
        whole = group[~group["resumed"].eq(True)] if "resumed" in group else group
        row["train_minutes"] = whole["train_seconds"].mean() / 60
        row |= {key: group[key].mean() for key in ("peak_memory_mb", "parameters", "extra_parameters")}
        rows.append(row)
    return pd.DataFrame(rows)


def key_of(record: Mapping[str, Any]) -> str:
    """The name of a record in metrics and file names: ``pgd-0``, ``teacher-gfl``."""
    return record["run"] if record["role"] == TEACHER else f"{record['run']}-{record['seed']}"


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number for reading; a dash when there is none."""
    if pd.isna(value):
        return MISSING
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def spread(mean: float, sd: float, sign: bool = False) -> str:
    """Mean and standard deviation, the latter only where there is one (not for a single seed)."""
    return number(mean, sign=sign) + ("" if pd.isna(sd) else f" ± {number(sd)}")


def method_name(role: str, method: str) -> str:
    """What a reader calls the method."""
    return TEACHER if role == TEACHER else METHOD_NAMES.get(method, method)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The aggregated table as text cells, for Markdown, the page and the notebook."""
    cells = pd.DataFrame(
        {
            "Run": row["run"],
            "Pair": row["pair"],
            "Method": method_name(row["role"], row["method"]),
            "Inherits": row["inherit"],
            "Seeds": str(row["seeds"]),
            "AP": spread(row["AP"], row["AP_sd"]),
            "AP50": number(row["AP50"]),
            "AP75": number(row["AP75"]),
            "AP_S": number(row["AP_small"]),
            "AP_M": number(row["AP_medium"]),
            "AP_L": number(row["AP_large"]),
            "gain": spread(row["gain"], row["gain_sd"], sign=True),
            "train min": number(row["train_minutes"]),
        }
        for _, row in table.iterrows()
    )
    return cells if table["pair"].nunique() > 1 else cells.drop(columns="Pair")


def markdown(cells: pd.DataFrame, words: int = 1) -> str:
    """A Markdown table of text cells: the first columns words, the others numbers, to the right."""
    rule = ["---" if place < words else "---:" for place in range(cells.shape[1])]
    lines = [list(cells.columns), rule, *cells.values.tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def headline(table: pd.DataFrame) -> str:
    """A sentence a pair: teacher, plain student and the distilled run with the highest mean AP."""
    several = table["pair"].nunique() > 1
    sentences = []
    for pair, rows in table.groupby("pair", sort=False):
        teacher = rows[rows["role"] == TEACHER].iloc[0]
        parts = [f"{f'{pair}: the' if several else 'The'} teacher reaches {number(teacher['AP'])} AP"]
        distilled = rows[rows["gain"].notna()]
        if len(distilled):
            best = distilled.loc[distilled["AP"].idxmax()]
            plain = rows.set_index("run").loc[best["baseline"]]
            top, base = (spread(row["AP"], row["AP_sd"]) for row in (best, plain))
            parts.append(f"of the distilled students '{best['run']}' is highest with {top} AP")
            parts.append(f"without a method, on the same footing, '{best['baseline']}' has {base}")
        sentences.append("; ".join(parts) + ".")
    return " ".join(sentences)


def load_curves(results: Path, records: pd.DataFrame) -> pd.DataFrame:
    """The students' training curves in one long table; AP is NaN where it was not measured."""
    parts = []
    for record in records[records["role"] != TEACHER].to_dict("records"):
        path = results / "curves" / f"{key_of(record)}.csv"
        try:
            curve = pd.read_csv(path)[["step", "loss", "AP"]]
        except FileNotFoundError:
            raise ReportError(f"{path} is missing") from None
        except (KeyError, ValueError) as error:
            raise ReportError(f"{path} is no curve with step, loss and AP: {error}") from None
        parts.append(curve.assign(**{key: record[key] for key in ("run", "seed", "method")}))
    return pd.concat(parts, ignore_index=True)


def sample_runs(records: pd.DataFrame) -> dict[str, str]:
    """Which records the sample pictures show, column title to name: teacher, plain student, PGD of the first pair.

    PGD is the first run of that method (failing that, of any), the student its baseline; first seed each.
    """
    records = records[records["pair"] == records["pair"].iloc[0]]
    first = records.drop_duplicates("run")
    students = first[first["role"] != TEACHER]
    plain, distilled = students[students["method"] == "none"], students[students["method"] != "none"]
    chosen = {TEACHER: first[first["role"] == TEACHER].iloc[0]}
    if len(distilled):
        shown = distilled.sort_values("method", key=lambda names: names != "pgd", kind="stable").iloc[0]
        plain = plain[plain["run"] == baseline_of(records, shown["run"])]
    if len(plain):
        alone = plain.iloc[0]
        chosen["student alone" if alone["inherit"] == "none" else "inheriting student"] = alone
    if len(distilled):
        chosen[method_name("student", shown["method"])] = shown
    return {title: key_of(record) for title, record in chosen.items()}


def load_samples(
    work: Path, dataset: str, columns: Mapping[str, str], count: int = 3
) -> tuple[list[np.ndarray], list[list[Box]], dict[str, list[list[Box]]]]:
    """Pictures of the validation set, their ground truth and, for each column, that record's detections.

    By a fixed rule, not by looks: the first images (in order of id) that hold at least three objects.
    """
    info = read_json(work / "dataset" / dataset / "dataset.json")
    folder = work.parent / info["val_images"]  # its paths are relative to where the pipeline runs
    coco = read_json(work.parent / info["val_annotations"])
    names = {category["id"]: category["name"] for category in coco["categories"]}
    truth: dict[int, list[Box]] = {image["id"]: [] for image in coco["images"]}
    for item in coco["annotations"]:
        box = Box(tuple(item["bbox"]), names[item["category_id"]], crowd=bool(item.get("iscrowd")))
        truth[item["image_id"]].append(box)
    files = {image["id"]: folder / image["file_name"] for image in coco["images"]}
    rich = [i for i in sorted(files) if sum(not box.crowd for box in truth[i]) >= 3]
    ids = (rich or sorted(files))[:count]
    try:
        images = [np.asarray(Image.open(files[i]).convert("RGB")) for i in ids]
    except OSError as error:
        raise ReportError(f"a validation image cannot be read: {error}") from None
    found = {}
    for title, key in columns.items():
        boxes: dict[int, list[Box]] = {i: [] for i in ids}
        for item in read_json(work / "evaluate" / key / "detections.json"):
            if item["image_id"] in boxes:
                box = Box(tuple(item["bbox"]), names[item["category_id"]], item["score"])
                boxes[item["image_id"]].append(box)
        found[title] = list(boxes.values())
    return images, [truth[i] for i in ids], found
