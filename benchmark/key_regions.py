"""Stage `key_regions`: which fraction of the predictions inside a box carries a detector? (PGD's first claim.)

``python -m benchmark.key_regions PAIR`` looks at a pair's trained teacher on its validation images; with ``--config``,
``--checkpoint``, ``--annotations`` and ``--images`` it takes any mmdet detector with a served dense head. It writes
``results/key_regions/<name>.csv`` (accuracy by kept share), ``<name>_levels.csv`` (on which levels the kept ones stand)
and ``<name>.json`` (settings, environment); ``python -m benchmark.region_figures`` draws all that is there.

In every ground-truth box (crowd regions are none) the predictions whose position lies inside are ranked. Some percent
of each box are kept, at least one prediction; what any box keeps is kept. Predictions outside all boxes stay. Ranked by

- ``top``: PGD's quality;
- ``random``: dice, once a draw;
- ``central``: nearness to the box's centre, relative to its sides; where equal, finer levels come first;
- ``worst``: quality, upside down.

What happens to the others depends on the mode:

- ``predictions``: they get no score, then the head goes on as always (its own thresholds and NMS);
- ``features``: behind the first block of both towers, the features of positions that keep no prediction are replaced by
  their mean over the image, by level and channel, and the head runs on from there.

Intervals (95%) are those of a paired bootstrap over images: ``AP_low`` and ``AP_high``, by size as well; ``change`` is
the difference from keeping everything, ``behind_top`` how much more the best of the same share give.

The ranking knows the boxes, so that dropping removes duplicates and false alarms, too: compare with the controls, which
keep as many. Accuracy is COCO's, whatever the data set's own metric. Time grows with shares x draws x modes: 500 mini
images take some five minutes on one core; on big sets, ``--limit`` takes the first N images.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("key_regions")

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from benchmark.data.faults import DataError
from benchmark.evidence.stats import draw_images
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import SettingsError, load
from benchmark.experiment.workspace import file_digest
from benchmark.probe.analysis import by_level, wanted
from benchmark.probe.coco_many import ManyCoco
from benchmark.probe.dropping import Chosen, Dropper, Options, choose
from benchmark.probe.intervals import uncertain
from benchmark.probe.options import FILES
from benchmark.probe.subjects import (
    Subject,
    batches,
    build,
    class_names,
    of_classes,
    read_annotations,
    subject_of_files,
    subject_of_pair,
    truth_of,
)
from benchmark.training.usage import machine
from pgd.checkpoint import CheckpointError
from pgd.dense import UnsupportedHead


class Findings(NamedTuple):
    """What is written about one detector."""

    #: a row for each mode, selection, draw and percentage
    table: pd.DataFrame
    #: a row for each percentage and level, of what ``top`` keeps
    levels: pd.DataFrame
    #: settings, data and environment
    record: dict


def pace() -> float:
    """Seconds between two updates of a bar: a log file gets a line now and then."""
    return 0.5 if sys.stderr.isatty() else 30


class Tally:
    """What one mode gave, image by image."""

    def __init__(self, coco: ManyCoco, settings: int) -> None:
        self.coco = coco
        #: predictions, or positions in mode features, in all boxes together: by setting what was kept, and all
        self.kept, self.in_box = torch.zeros(settings, dtype=torch.long), 0
        #: the same in each box, image by image
        self.counts: list[Tensor] = []

    def add(self, image_id: int, detections: Sequence[Tensor], chosen: Chosen) -> None:
        """One image: its detections by setting, and what was kept."""
        self.coco.add(image_id, detections)
        self.kept += chosen.kept.sum(dim=1).cpu()
        self.in_box += int(chosen.in_box.sum())
        self.counts.append(chosen.counts.cpu())


def analyse(subject: Subject, options: Options, limit: int | None = None, batch_size: int = 1) -> Findings:
    """Run the detector once over the (first ``limit``) images, drop what the options say, and measure."""
    start = time.perf_counter()
    model, truth = build(subject), read_annotations(subject)
    names = class_names(subject, truth, model.bbox_head.num_classes)
    truth = of_classes(truth, names)
    category_of = {category["name"]: category["id"] for category in truth.dataset["categories"]}
    label_of = {category_of[name]: label for label, name in enumerate(names) if name in category_of}
    by_mode = {
        mode: Tally(ManyCoco(truth, label_of, subject.areas, options.settings), options.settings)
        for mode in options.modes
    }
    dropper, number = Dropper(model), 0
    strides = dropper.tape.reader.strides
    levels = torch.zeros(len(options.percents), len(strides), dtype=torch.long)
    total = min(len(truth.imgs), limit or len(truth.imgs))
    with torch.no_grad(), tqdm(total=total, desc=subject.name, mininterval=pace()) as bar:
        for part, batch in batches(subject, truth, limit, batch_size):
            view, metas = dropper.look(batch)
            for image, (image_id, meta) in enumerate(zip(part, metas, strict=True)):
                objects = truth_of(truth, image_id, label_of, meta["scale_factor"], view.boxes.device)
                chosen = choose(view, image, objects, options, number)
                for mode, tally in by_mode.items():
                    choice = chosen
                    if mode == "features" and view.grid.per_position > 1:
                        choice = choose(view, image, objects, options, number, mode)
                    dropped = choice.in_box & ~choice.kept
                    tally.add(image_id, dropper.detect(mode, dropped, view.grid, image, meta), choice)
                levels += by_level(chosen.kept[: len(options.percents)], view.grid).cpu()
                number += 1
                bar.update()
    in_boxes = torch.cat(next(iter(by_mode.values())).counts)
    record = {
        "name": subject.name,
        "detector": type(model).__name__.lower(),
        "head": type(model.bbox_head).__name__,
        "config": subject.config,
        "checkpoint": str(subject.checkpoint),
        "checkpoint_sha256": file_digest(subject.checkpoint),
        "annotations": str(subject.annotations),
        "areas": list(subject.areas),
        "images": number,
        "boxes": int((in_boxes > 0).sum()),
        "boxes_without_position": int((in_boxes == 0).sum()),
        "batch_size": batch_size,
        **asdict(options),
        "test_cfg": dict(model.bbox_head.test_cfg),
        "seconds": round(time.perf_counter() - start, 1),
        **machine(),
    }
    table = accuracy_table(options, by_mode)
    return Findings(named(table, record), named(level_table(options, levels, strides), record), record)


def named(table: pd.DataFrame, record: dict) -> pd.DataFrame:
    """The table with the detector's name in front."""
    table.insert(0, "name", record["name"])
    table.insert(1, "detector", record["detector"])
    return table


def accuracy_table(options: Options, by_mode: dict[str, Tally]) -> pd.DataFrame:
    """A row for each mode, selection, draw and percentage."""
    rows = []
    for mode, tally in by_mode.items():
        counts = torch.cat(tally.counts)
        counts = counts[counts > 0]
        limits = torch.minimum(wanted(counts, options.fractions), counts).double().mean(dim=1).tolist()
        below_one = [float((counts * fraction < 1).double().mean()) for fraction in options.fractions]
        settings = ((ranking, k) for ranking in options.rankings for k in range(len(options.percents)))
        found = tally.coco.figures()
        resampled = tally.coco.resampled(draw_images(len(tally.counts), options.resamples))
        around = uncertain(found, resampled, options.percents)
        columns = zip(settings, found, tally.kept, around, strict=True)
        for ((selection, seed), k), figures, kept, intervals in columns:
            rows.append(
                {
                    "mode": mode,
                    "selection": selection,
                    "percent": options.percents[k],
                    "draw": seed,
                    **figures,
                    "kept": int(kept),
                    "in_box": tally.in_box,
                    # predictions (positions) a box, and the share of boxes of which the percentage is less than one
                    "kept_per_box": limits[k],
                    "below_one": below_one[k],
                    **intervals,
                }
            )
    return pd.DataFrame(rows).astype({"draw": "Int64"})


def level_table(options: Options, levels: Tensor, strides: Sequence[int]) -> pd.DataFrame:
    """A row for each percentage and level: predictions ``levels`` ``[F, L]`` that ``top`` keeps, and their share."""
    shares = levels / levels.sum(dim=1, keepdim=True).clamp(min=1)
    return pd.DataFrame(
        {"percent": percent, "level": level, "stride": stride, "kept": int(count), "share": float(share)}
        for percent, counts, part in zip(options.percents, levels, shares, strict=True)
        for level, (stride, count, share) in enumerate(zip(strides, counts, part, strict=True))
    )


def write(findings: Findings, out: Path) -> None:
    """The three files of one detector."""
    out.mkdir(parents=True, exist_ok=True)
    name = findings.record["name"]
    for suffix, table in (("", findings.table), ("_levels", findings.levels)):
        table.round(4).to_csv(out / f"{name}{suffix}.csv", index=False, lineterminator="\n")
    (out / f"{name}.json").write_text(json.dumps(findings.record, indent=2, default=str) + "\n", encoding="utf-8")


def overview(table: pd.DataFrame) -> str:
    """AP by mode, selection and percentage; means over draws."""
    percents, orders = table["percent"].unique(), table["selection"].unique()
    wide = table.pivot_table(index=["mode", "selection"], columns="percent", values="AP", sort=False)
    wide = wide.reindex(index=pd.MultiIndex.from_product([table["mode"].unique(), orders]), columns=percents)
    return wide.rename(columns="{:g}%".format).to_string(float_format="{:.1f}".format, index_names=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the stage."""
    args = command_parser("key_regions").parse_args(argv)
    files = [getattr(args, key) for key in FILES]
    quiet()
    if args.pair:
        subject = subject_of_pair(load(args.params), args.pair)
    else:
        subject = subject_of_files(*files, args.name, args.classes)
    options = Options(
        percents=tuple(sorted(set(args.percents))),
        modes=tuple(dict.fromkeys(args.modes)),
        xi=args.xi,
        seeds=tuple(range(args.seed, args.seed + args.draws)),
    )
    findings = analyse(subject, options, args.limit, args.batch_size)
    write(findings, args.out)
    print(overview(findings.table))


if __name__ == "__main__":
    run_cli(main, SettingsError, DataError, CheckpointError, UnsupportedHead)
