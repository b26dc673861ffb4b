"""What others published, as data with its source. None of it was measured here, and it shares no table with ours."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


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
#: README of: rows (method, detector, teacher where it is named, plain and distilled R50)
RIVALS = {
    "HikariTJU/LD, commit 4287990": (
        ("FitNet", "GFL", "", "40.1", "40.7"),
        ("FGFI", "GFL", "", "40.1", "41.1"),
        ("DeFeat", "GFL", "", "40.1", "40.8"),
        ("GID", "GFL", "", "40.1", "41.5"),
        ("LD", "GFL", "", "40.1", "42.1"),
    ),
    "duzhixing/FRS, commit decd60c": (("FRS", "GFL", "44.9", "40.2", "43.6"), ("FRS", "FCOS", "40.8", "38.5", "40.9")),
    "yzd-v/FGD, commit c03a6cf": (("FGD", "GFL", "", "40.2", "43.5"), ("FGD", "FCOS", "", "38.5", "42.7")),
    "CrossKD's release, commit 87e156a": (
        ("CrossKD", "GFL", "", "40.2", "43.7"),
        ("CrossKD", "FCOS", "", "38.5", "41.1"),
        ("CrossKD", "ATSS", "41.5", "39.4", "41.8"),
    ),
    "BCKD's release, commit 121c9aa": (("BCKD", "GFL", "", "40.1", "43.2"),),
    "ICD's release, commit acf2726": (("ICD", "FCOS", "", "39.4", "42.9"),),
}

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
        columns=("Method", "Detector", "Source", "Teacher", "Student (R50)", "distilled"),
        rows=tuple(
            (method, detector, f"README of {source}", teacher or "\u2013", *figures)
            for source, rows in RIVALS.items()
            for method, detector, teacher, *figures in rows
        ),
        note="AP in percent. Each source has its own teacher and schedule: not comparable with one another either.",
        words=3,
    ),
    Published(
        title="Published: PGD on CrowdHuman",
        metric="crowdhuman",
        columns=("DDOD", "MR ↓", "AP", "JI", "MR change", "gain in AP", "change of JI"),
        rows=(
            ("Teacher (R101, 36 epochs, multi-scale)", "41.4", "90.2", "81.4", "\u2013", "\u2013", "\u2013"),
            ("Student (R50, 12 epochs)", "46.0", "88.0", "79.0", "\u2013", "\u2013", "\u2013"),
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
