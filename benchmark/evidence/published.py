"""What others published, as data with its source. None of it was measured here, and it shares no table with ours."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from benchmark.evidence.literature import DASH, FOOTINGS, gain


@dataclass(frozen=True)
class Published:
    """A table of published figures: text cells as the source prints them, the first ``words`` columns words."""

    title: str
    #: kind of metric of the runs beside which it is shown
    metric: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    words: int = 1

    def cells(self) -> pd.DataFrame:
        """The table as text cells."""
        return pd.DataFrame(list(self.rows), columns=list(self.columns))


PGD = "README of ChenhongyiYang/PGD, commit 81c54d5"
#: detectors of the mini sets; RetinaNet's figures are in docs/published.md
SHOWN = ("GFL", "FCOS", "ATSS")
RIVALS = tuple(
    (footing.name, figure.method, figure.source, figure.teacher or DASH, footing.plain or DASH, figure.distilled)
    + (gain(figure, footing),)
    for footing in FOOTINGS
    if footing.detector in SHOWN
    for figure in footing.figures
    if figure.method != "PGD"
)

PUBLISHED = (
    Published(
        title="Published: PGD on COCO",
        metric="coco",
        columns=("Detector", "Teacher (R101, 3x, multi-scale)", "Student (R50, 1x)", "PGD (R50, 1x)", "gain"),
        rows=(
            ("FCOS", "43.1", "38.2", "42.5", "+4.3"),
            ("AutoAssign", "44.8", "40.6", "43.8", "+3.1"),
            ("ATSS", "45.5", "39.6", "44.2", "+4.6"),
            ("GFL", "45.8", "40.2", "43.8", "+3.6"),
            ("DDOD", "46.6", "42.0", "45.4", "+3.4"),
        ),
        note=f"AP in percent, gains as the source prints them. Source: {PGD}.",
    ),
    Published(
        title="Published: rivals on COCO",
        metric="coco",
        columns=("Student (R50 unless named)", "Method", "Source", "Teacher", "alone", "distilled", "gain"),
        rows=RIVALS,
        note="AP in percent; alone: a student of the same head and schedule, whatever the source compares with. "
        "Sources have teachers of their own.",
        words=3,
    ),
    Published(
        title="Published: PGD on CrowdHuman",
        metric="crowdhuman",
        columns=("DDOD", "MR ↓", "AP", "JI", "MR change", "gain in AP", "change of JI"),
        rows=(
            ("Teacher (R101, 36 epochs, multi-scale)", "41.4", "90.2", "81.4", DASH, DASH, DASH),
            ("Student (R50, 12 epochs)", "46.0", "88.0", "79.0", DASH, DASH, DASH),
            ("PGD (R50, 12 epochs)", "42.8", "90.0", "80.7", "\u22123.2", "+2.0", "+1.7"),
        ),
        note=f"In percent; lower is better for MR. Source: {PGD}.",
    ),
)
CAVEAT = (
    "Other data, backbones, image sizes and schedules than ours: not comparable with the mini sets, shown for "
    "orientation only."
)


def published(kinds: set[str]) -> list[Published]:
    """The tables that belong beside runs of these kinds of metric."""
    return [table for table in PUBLISHED if table.metric in kinds]
