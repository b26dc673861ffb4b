"""Intervals of gains that seeds cannot give: a single seed's runs and their detections, images drawn anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmark.evidence.record import ReportError, read_json
from benchmark.evidence.stats import (
    coco_ap,
    coco_matches,
    crowd_ap_mr,
    crowd_matches,
    draw_images,
    indexed,
    percentile_interval,
)

RESAMPLES = 500
#: of a table's gain: its metric and the place of that in what a scorer gives
GAINS = {"gain": 0, "MR_change": 1}
#: detections -> [B, 1 or 2]: AP (and MR) in percent of each resample
Scorer = Callable[[list[dict]], np.ndarray]


def read_odgt(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """ID -> [G, 4] whole bodies ``x, y, w, h`` and [G] which are to be ignored, in the file's order."""
    truth = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            image = json.loads(line)
            boxes = image["gtboxes"]
            ignored = [box["tag"] != "person" or box.get("extra", {}).get("ignore", 0) != 0 for box in boxes]
            bodies = np.array([box["fbox"] for box in boxes], dtype=float).reshape(-1, 4)
            truth[image["ID"]] = bodies, np.array(ignored, dtype=bool)
    except FileNotFoundError:
        raise ReportError(f"{path} is missing") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path} is no annotation file of CrowdHuman: {error!r}") from None
    return truth


def scorer(work: Path, dataset: str, resamples: int) -> Scorer:
    """What scores detections on a data set, on the same resamples of its validation images each time."""
    info = read_json(work / "dataset" / dataset / "dataset.json")
    if info.get("metric", "coco") == "crowdhuman":
        people = read_odgt(work.parent / info["val_odgt"])
        draws = draw_images(len(people), resamples)
        return lambda detections: crowd_ap_mr(crowd_matches(people, detections), draws)
    truth = indexed(read_json(work.parent / info["val_annotations"]))
    draws = draw_images(len(truth.imgs), resamples)
    return lambda detections: coco_ap(coco_matches(truth, detections), draws)[:, None]


def over_images(records: pd.DataFrame, table: pd.DataFrame, work: Path, resamples: int = RESAMPLES) -> pd.DataFrame:
    """The aggregated table with the intervals of gains that rest on one seed; ``interval`` says "images" there.

    Both runs of a gain see the same draws, so that what is easy or hard about an image cancels out.
    """
    alone = table[table["gain"].notna() & table["interval"].isna()]
    if alone.empty:
        return table
    seeds = {row["run"]: _shared_seed(records, row) for _, row in alone.iterrows()}
    pairs = {
        run: (f"{run}-{seed}", f"{alone.set_index('run').loc[run, 'baseline']}-{seed}") for run, seed in seeds.items()
    }
    datasets = dict(zip(records["key"], records["dataset"], strict=True))
    figures = _score(work, {key: datasets[key] for keys in pairs.values() for key in keys}, resamples)
    table = table.astype({"interval": object})
    for row in alone.index:
        own, plain = (figures[key] for key in pairs[table.loc[row, "run"]])
        for name, place in GAINS.items():
            if place < own.shape[1]:
                table.loc[row, [f"{name}_low", f"{name}_high"]] = percentile_interval(own[:, place] - plain[:, place])
        table.loc[row, "interval"] = "images"
    return table


def _shared_seed(records: pd.DataFrame, row: pd.Series) -> Any:
    own, plain = (set(records.loc[records["run"] == name, "seed"]) for name in (row["run"], row["baseline"]))
    return min(own & plain)


def _score(work: Path, keys: dict[str, str], resamples: int) -> dict[str, np.ndarray]:
    """The scores of records, given with their data sets."""
    scorers: dict[str, Scorer] = {}
    figures = {}
    for key, dataset in _watched(keys.items()):
        path = work / "evaluate" / key / "detections.json"
        detections = read_json(path)
        if dataset not in scorers:
            scorers[dataset] = scorer(work, dataset, resamples)
        try:
            figures[key] = scorers[dataset](detections)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise ReportError(f"{path} holds no detections on {dataset}: {error!r}") from None
    return figures


def _watched(items: Iterable) -> tqdm:
    return tqdm(items, desc="intervals", mininterval=5, dynamic_ncols=True)
