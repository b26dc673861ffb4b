"""Sample pictures: which are shown, what was found on them, and their figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from benchmark.evidence.record import TEACHER, ReportError, read_json
from benchmark.evidence.records import baseline_of
from benchmark.evidence.tables import method_name
from benchmark.figures.looks import WIDTH, style

# false ones in a colour that few objects have
TRUTH, CORRECT, FALSE, IGNORED, MISSED_KEY = "#ffffff", "#56b4e9", "#ff6ee0", "#d9d9d9", "#b4b4b4"
LINES = {
    "truth": {"color": TRUTH, "linestyle": "-"},
    "correct": {"color": CORRECT, "linestyle": "-"},
    "false": {"color": FALSE, "linestyle": (0, (3, 1.5))},
    "ignored": {"color": IGNORED, "linestyle": (0, (1, 1.5))},
    "missed": {"color": TRUTH, "linestyle": "-", "alpha": 0.5},
}
#: detections below it are never shown
MIN_SCORE = 0.05
MIN_IOU = 0.5
#: objects of an image that may be shown: of more, boxes tangle
FEW, MANY = 3, 8
#: boxes that overlap so much stand on one spot
SPOT = 0.3


@dataclass(frozen=True)
class Box:
    """A box of a sample picture: ``[x, y, w, h]`` in pixels, class, and a score unless it is ground truth."""

    xywh: tuple[float, float, float, float]
    label: str
    score: float = math.nan
    crowd: bool = False


@dataclass(frozen=True)
class Samples:
    """Pictures with their ground truth and, for each row, what one detector found on each of them."""

    images: list[np.ndarray]
    truth: list[list[Box]]
    detections: dict[str, list[list[Box]]]
    #: why each picture is shown
    reasons: list[str]
    #: from which score on a detector's boxes are shown
    scores: dict[str, float]
    #: boxes say their class; pointless where there is one class only
    tagged: bool = True


def sample_runs(records: pd.DataFrame) -> dict[str, str]:
    """Which records the sample pictures show, title to name: of the first pair teacher, student, PGD, best.

    PGD is the first run of that method (failing that, of any), the student its baseline, the best the run of another
    method with the highest mean AP on the same footing, where that is above PGD's; first seed each. Of a method with
    several runs the title is the run's name.
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
        chosen[method_name(shown)] = shown
        alike = distilled[(distilled["inherit"] == shown["inherit"]) & (distilled["method"] != shown["method"])]
        mean = records.groupby("run")["AP"].mean()
        if len(alike) and mean[best := mean[alike["run"]].idxmax()] > mean[shown["run"]]:
            row = alike[alike["run"] == best].iloc[0]
            single = (distilled["method"] == row["method"]).sum() == 1
            chosen[f"{method_name(row) if single else best} (highest AP)"] = row
    return {title: record["key"] for title, record in chosen.items()}


def boxes_by_image(detections: list[dict[str, Any]], files: Mapping[int, Path], names: Mapping[int, str]) -> dict:
    """Detections of either metric by image: COCO results, or CrowdHuman's entries, whose ID is a file's stem."""
    found: dict[int, list[Box]] = {i: [] for i in files}
    if not detections or "ID" not in detections[0]:
        for item in detections:
            if item["image_id"] in found:
                box = Box(tuple(item["bbox"]), names[item["category_id"]], item["score"])
                found[item["image_id"]].append(box)
        return found
    numbers, person = {path.stem: i for i, path in files.items()}, next(iter(names.values()))
    for entry in detections:
        if entry["ID"] in numbers:
            found[numbers[entry["ID"]]] = [Box(tuple(box[:4]), person, box[4]) for box in entry["boxes"]]
    return found


def agreement(detections: Sequence[Box], truth: Sequence[Box], least: float) -> float:
    """F1 of an image: correct detections of a score of ``least`` or more against false and missed ones, 0 to 1."""
    kinds = [kind for _, kind in judge(detections, truth, least)]
    right = kinds.count("correct")
    return 2 * right / max(2 * right + kinds.count("false") + kinds.count("missed"), 1)


def best_score(found: Mapping[int, Sequence[Box]], truth: Mapping[int, Sequence[Box]]) -> float:
    """The score from which on a detector's boxes have the highest F1 on some images, rounded down to hundredths.

    About as many are false there as objects are missed. Scores of detectors differ in what they mean, and so those of
    one are no measure for another.
    """
    judged = [(box.score, kind) for i in truth for box, kind in judge(found[i], truth[i], MIN_SCORE)]
    objects = sum(kind in ("correct", "missed") for _, kind in judged)
    ranked = sorted((one for one in judged if one[1] in ("correct", "false")), reverse=True)
    right = np.cumsum([kind == "correct" for _, kind in ranked])
    if not len(right) or not right[-1]:
        return MIN_SCORE
    f1 = 2 * right / (np.arange(1, len(right) + 1) + objects)
    return math.floor(100 * ranked[int(np.argmax(f1))][0]) / 100


def choose(taught: Mapping[int, float], plain: Mapping[int, float]) -> dict[int, str]:
    """Which images are shown, and why: by a fixed rule, not by looks.

    The typical one differs as the median image does (of several, the one whose own figure is nearest to the median,
    then the first); the others are those with the largest gain and the largest loss, where there is any.

    Args:
        own: :func:`agreement` of the distilled student by image.
        plain: the same of its baseline.
    """
    gain = {i: taught[i] - plain[i] for i in taught}
    middle, usual = np.median(list(gain.values())), np.median(list(taught.values()))
    chosen = {min(gain, key=lambda i: (abs(gain[i] - middle), abs(taught[i] - usual), i)): "typical"}
    for reason, sign in (("largest gain", 1), ("largest loss", -1)):
        best = max(gain, key=lambda i: (sign * gain[i], -i))
        if sign * gain[best] > 0 and best not in chosen:
            chosen[best] = reason
    return chosen


def load_samples(work: Path, dataset: str, runs: Mapping[str, str]) -> Samples:
    """Pictures of the validation set, their ground truth and, for each run, its record's detections.

    Of the images with three to eight objects (failing them, of all) those of :func:`choose`, by student and PGD.
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
    rich = [i for i in sorted(files) if FEW <= sum(not box.crowd for box in truth[i]) <= MANY]
    found = {
        title: boxes_by_image(read_json(work / "evaluate" / key / "detections.json"), files, names)
        for title, key in runs.items()
    }
    among = {i: truth[i] for i in rich or files}
    scores = {title: best_score(boxes, among) for title, boxes in found.items()}
    plain, taught = (
        {i: agreement(found[title][i], own, scores[title]) for i, own in among.items()}
        for title in list(found)[:3][-2:]
    )
    shown = choose(taught, plain)
    try:
        images = [np.asarray(Image.open(files[i]).convert("RGB")) for i in shown]
    except OSError as error:
        raise ReportError(f"a validation image cannot be read: {error}") from None
    return Samples(
        images,
        [truth[i] for i in shown],
        {title: [boxes[i] for i in shown] for title, boxes in found.items()},
        list(shown.values()),
        scores,
        tagged=len(names) > 1,
    )


def overlap(a: Box, b: Box) -> tuple[float, float]:
    """Intersection over union, and intersection over the area of ``a`` (the rule for crowd regions)."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.xywh, b.xywh
    common = max(0.0, min(ax + aw, bx + bw) - max(ax, bx)) * max(0.0, min(ay + ah, by + bh) - max(ay, by))
    return common / max(aw * ah + bw * bh - common, 1e-9), common / max(aw * ah, 1e-9)


def judge(detections: Sequence[Box], truth: Sequence[Box], least: float) -> Iterator[tuple[Box, str]]:
    """Each detection of a score of ``least`` or more, best first, as "correct", "false" or "ignored" (inside a crowd
    region), then the objects that are "missed".

    Correct: it overlaps an object of its class, not yet found by a better one, with an IoU of 0.5 or more.
    """
    free = [box for box in truth if not box.crowd]
    for box in sorted((d for d in detections if d.score >= least), key=lambda d: -d.score):
        rivals = [t for t in free if t.label == box.label and overlap(box, t)[0] >= MIN_IOU]
        if rivals:
            free.remove(max(rivals, key=lambda t: overlap(box, t)[0]))
            yield box, "correct"
        elif any(t.crowd and t.label == box.label and overlap(box, t)[1] >= MIN_IOU for t in truth):
            yield box, "ignored"
        else:
            yield box, "false"
    yield from ((box, "missed") for box in free)


def told(judged: Sequence[tuple[Box, str]]) -> list[Box]:
    """The boxes, best first, whose class is written: of those on one spot the best alone, or words cover words."""
    kept: list[Box] = []
    for box, kind in judged:
        if kind in ("truth", "ignored") or not any(overlap(box, other)[0] > SPOT for other in kept):
            kept.append(box)
    return kept


def draw_box(axes: Axes, box: Box, kind: str, width: float, tagged: bool = True, thin: bool = False) -> None:
    """One box with a dark halo, to show on any picture; where ``tagged``, its class and score if it is wrong.

    What is missed is faint: thin, without a halo.
    """
    x, y, w, h = box.xywh
    line = LINES[kind]
    patch = Rectangle((x, y), w, h, fill=False, linewidth=0.9 if thin or kind == "missed" else 1.5, **line)
    if kind != "missed":
        patch.set_path_effects([withStroke(linewidth=1.8 if thin else 2.8, foreground="#000000a0")])
    axes.add_patch(patch)
    if not tagged or kind in ("correct", "missed"):
        return
    text = box.label if np.isnan(box.score) else f"{box.label} {box.score:.2f}"
    tag = {"boxstyle": "square,pad=0.12", "facecolor": line["color"], "edgecolor": "none", "alpha": 0.85}
    # A tag stays in the picture; a letter takes about 2.5% of its width.
    past, below = x + 0.025 * width * len(text) > width, y < 0.07 * width
    place = (width - 1 if past else max(x, 0), y + 1 if below else y)
    align = {"ha": "right" if past else "left", "va": "top" if below else "bottom"}
    axes.text(*place, text, fontsize=6.5, color="black", bbox=tag, clip_on=True, **align)


def figure(shown: Samples) -> Figure:
    """Columns: images. Rows: ground truth, then one a detector. Correct solid, false dashed, missed faint."""
    style()
    rows = ["ground truth", *shown.detections]
    # The pictures of a data set have about the same shape.
    wide = WIDTH / 3
    tall = wide * min(1.3, max(image.shape[0] / image.shape[1] for image in shown.images)) + 0.17
    # Photographs fill a PNG: fewer dots keep it small enough to live in git.
    size = (max(5.6, wide * len(shown.images)), tall * len(rows) + 0.5)  # the legend's width at least
    drawn = Figure(figsize=size, dpi=120, layout="constrained")
    panels = drawn.subplots(len(rows), len(shown.images), squeeze=False)
    for (row, title), (column, image) in product(enumerate(rows), enumerate(shown.images)):
        axes = panels[row, column]
        axes.imshow(image, interpolation="bilinear")
        axes.set(xticks=[], yticks=[], xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
        objects = [box for box in shown.truth[column] if not box.crowd]
        if row == 0:
            judged = [(box, "ignored" if box.crowd else "truth") for box in shown.truth[column]]
            note = f"{len(objects)} objects"
        else:
            found = judge(shown.detections[title][column], shown.truth[column], shown.scores[title])
            # what is to be ignored would only hide the rest
            judged = [(box, kind) for box, kind in found if kind != "ignored"]
            kinds = [kind for _, kind in judged]
            note = f"{kinds.count('correct')} of {len(objects)} found, {kinds.count('false')} false"
        named = told(judged)
        for box, kind in reversed(judged):  # the best on top
            draw_box(axes, box, kind, image.shape[1], shown.tagged and box in named, not shown.tagged)
        axes.set_xlabel(note, fontsize=10)
        if row == 0:
            axes.set_title(shown.reasons[column])
        if column == 0:
            axes.set_ylabel(title if row == 0 else f"{title}\nscore \u2265 {shown.scores[title]:.2f}", fontsize=10)
    names = {
        "correct": f"correct ({'same class, ' if shown.tagged else ''}IoU ≥ 0.5)",
        "false": "false",
        "missed": "missed",
        "ignored": "crowd region" if shown.tagged else "region to ignore",
    }
    if not any(box.crowd for boxes in shown.truth for box in boxes):
        del names["ignored"]
    handles = [Line2D([], [], linewidth=2, label=name, **LINES[kind]) for kind, name in names.items()]
    # what is white in the pictures would not show on the page
    handles[2].set(color=MISSED_KEY, alpha=1, linewidth=1)
    drawn.legend(handles=handles, loc="outside lower center", ncols=2 if shown.tagged else 4)
    return drawn
