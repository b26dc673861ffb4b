"""How far gains may be from what other seeds and other images would give.

`evaluate` scores every training on the same resamples of its validation images and keeps the figures
(``results/bootstrap``): a few kilobytes from which everything here follows, without detections.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.evidence.record import ReportError, read_json
from benchmark.evidence.records import paired
from benchmark.evidence.stats import (
    coco_ap,
    coco_matches,
    crowd_ap_mr,
    crowd_matches,
    draw_images,
    holm,
    improvement,
    indexed,
    over_seeds,
    percentile_interval,
    smallest_difference,
    two_sided,
)

RESAMPLES = 1000
#: of a table's gain: its metric
GAINS = {"gain": "AP", "MR_change": "MR"}
#: detections -> a column a metric: its figure in percent on each resample
Scorer = Callable[[list[dict]], pd.DataFrame]


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


def scorer(annotations: Path, odgt: Path | None = None, resamples: int = RESAMPLES) -> Scorer:
    """What scores detections on resamples of a data set's validation images, the same ones each time.

    Args:
        annotations: COCO JSON of the images.
        odgt: CrowdHuman's annotations instead, where its metric counts.
        resamples: how many.
    """
    if odgt is not None:
        people = read_odgt(odgt)
        draws = draw_images(len(people), resamples)
        return lambda found: pd.DataFrame(crowd_ap_mr(crowd_matches(people, found), draws), columns=["AP", "MR"])
    truth = indexed(read_json(annotations))
    draws = draw_images(len(truth.imgs), resamples)
    return lambda found: pd.DataFrame({"AP": coco_ap(coco_matches(truth, found), draws)})


def bootstrap_file(results: Path, key: str) -> Path:
    """Where the figures of a record on the resamples are kept."""
    return results / "bootstrap" / f"{key}.csv"


def load_bootstrap(results: Path, keys: Sequence[str], metric: str) -> np.ndarray | None:
    """Figures ``[records, resamples]`` in percent; None where one of the files is not there."""
    found = []
    for key in keys:
        path = bootstrap_file(results, key)
        if not path.is_file():
            return None
        try:
            found.append(pd.read_csv(path)[metric].to_numpy(float))
        except (KeyError, ValueError) as error:
            raise ReportError(f"{path} holds no resampled {metric}: {error!r}") from None
    if len({len(own) for own in found}) != 1:
        raise ReportError(f"{results / 'bootstrap'}: {keys[0]} and others differ in their number of resamples")
    return np.stack(found)


def with_bootstrap(records: pd.DataFrame, table: pd.DataFrame, results: Path) -> pd.DataFrame:
    """The aggregated table with intervals over images, and over seeds too where there are several.

    Both runs of a gain see the same draws, so that what is easy or hard about an image cancels out. ``interval`` says
    what an interval rests on: ``both``, ``images`` (a single seed), or ``seeds`` where no resamples were kept. With
    several seeds, ``gain_p`` is the two-sided p-value of no gain, by Holm over the methods of the footing's table,
    ``gain_chance`` how often a training of the run is better than one of its baseline, on images drawn anew, and
    ``gain_seen`` the smallest true gain that so many seeds and images tell from none four times in five.
    """
    table = table.astype({"interval": object})
    table[["gain_p", "gain_chance", "gain_seen"]] = np.nan
    for row in table.index[table["gain"].notna()]:
        run, plain = table.loc[row, "run"], table.loc[row, "baseline"]
        seeds = sorted(paired(records, run, plain, "AP").index)
        for name, metric in GAINS.items():
            if name not in table or pd.isna(table.loc[row, name]):
                continue
            ours, base = (
                load_bootstrap(results, [f"{which}-{seed}" for seed in seeds], metric) for which in (run, plain)
            )
            if ours is None or base is None:
                continue
            differences = ours - base
            values = over_seeds(differences)
            table.loc[row, [f"{name}_low", f"{name}_high"]] = percentile_interval(values)
            table.loc[row, "interval"] = "both" if len(seeds) > 1 else "images"
            if name == "gain" and len(seeds) > 1:
                table.loc[row, "gain_p"] = two_sided(values)
                table.loc[row, "gain_chance"] = improvement(ours, base)
                spreads = [differences.mean(axis=axis).std(ddof=1) for axis in (1, 0)]
                table.loc[row, "gain_seen"] = smallest_difference(*spreads, len(seeds))
    for _, group in table[table["gain_p"].notna()].groupby("baseline"):
        table.loc[group.index, "gain_p"] = holm(group["gain_p"].to_numpy(float))
    return table
