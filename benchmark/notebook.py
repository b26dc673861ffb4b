"""What the notebooks are made of: open what one is about, show it, go on without a part that may be missing.

``open_...`` display what they found; without it a notebook ends with a sentence, :class:`NothingToShow`.
``PGD_RESULTS`` names the results folder to look at. Only what needs a teacher imports torch and mmdet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import pandas as pd
from IPython.display import Markdown, display
from ipywidgets import FloatSlider, IntSlider, Widget
from matplotlib.figure import Figure

from benchmark import region_figures
from benchmark.evidence import records, region_tables, tables
from benchmark.evidence.record import ReportError
from benchmark.experiment.workspace import ROOT
from benchmark.figures import ablation, dynamics

if TYPE_CHECKING:
    from benchmark.probe.views import Scene, Teacher

#: By kind of metric: the results shown where the folder asked for has none of this kind, and the command for them.
KEPT = {
    "coco": ("results", "`dvc repro` in the repository"),
    "crowdhuman": ("experiments/crowd/results", "`cd experiments/crowd && dvc repro`"),
}
#: what detectors trained on COCO have in their boxes
PHOTOGRAPHS = ROOT / "experiments/coco-regions/results"
#: runs that differ in one setting of PGD
CHANGES = ROOT / "experiments/regions/results"


class NothingToShow(ReportError):
    """What a whole notebook is about is missing; the message says what, and what brings it. Cells below do not run."""

    def _render_traceback_(self) -> list[str]:
        """For IPython: the sentence and no traceback, as no code is at fault."""
        return [str(self)]


class Results(NamedTuple):
    """Runs of one results folder: a row a record, and a row a run with gains and their intervals."""

    folder: Path
    runs: pd.DataFrame
    table: pd.DataFrame


def show(*parts: pd.DataFrame | Figure | str | Widget | None) -> None:
    """Display tables (without their index), figures, Markdown and widgets, one below the other."""
    for part in parts:
        match part:
            case None:
                pass
            case pd.DataFrame():
                # named by its content, as a random name would be another one in every run
                display(part.style.hide(axis="index").set_uuid(f"{crc32(part.to_csv().encode()):08x}"))
            case str():
                display(Markdown(part))
            case Widget():
                # where no widgets run, a sentence stands in for them
                text = {"text/plain": "(Open the notebook in Jupyter for the sliders.)"}
                display(part._repr_mimebundle_() | text, raw=True)
            case _:
                display(part)


@contextmanager
def optional(lead: str, remedy: str = "") -> Iterator[None]:
    """Around a part that may be missing: a ReportError becomes a sentence on the page, and the notebook goes on."""
    try:
        yield
    except ReportError as error:
        show(f"**{lead}**: {_reason(error)}. {remedy}".strip())


@contextmanager
def needed(remedy: str) -> Iterator[None]:
    """Around what a whole notebook is about: raises NothingToShow in place of a ReportError or a FigureError."""
    try:
        yield
    except (ReportError, region_figures.FigureError) as error:
        raise NothingToShow(f"Nothing to show: {_reason(error)}. {remedy}") from None


def _reason(error: Exception) -> str:
    """What an error says, with paths as a reader of the repository knows them, whatever the machine."""
    return str(error).replace(f"{ROOT}{os.sep}", "")


def results_folder(default: str = "results") -> Path:
    """The folder that ``PGD_RESULTS`` names, else the default one; relative paths start at the repository's root."""
    return ROOT / (os.environ.get("PGD_RESULTS") or default)


def open_results(kind: str) -> Results:
    """The runs with a kind of metric, else those of :data:`KEPT`; raises NothingToShow without any."""
    kept, command = KEPT[kind]
    with needed(f"{command} trains them; set `PGD_RESULTS` for another folder."):
        folder, runs = records.load_kind(results_folder(kept), kind, otherwise=ROOT / kept)
    found = _aggregated(folder, runs)
    show(tables.gains_sentence(found.table))
    return found


def open_ablation(setting: str) -> Results:
    """Runs that differ in a setting, else those of experiments/regions; raises ReportError without any."""
    return _aggregated(*ablation.find([results_folder(), CHANGES], setting))


def _aggregated(folder: Path, runs: pd.DataFrame, lacking: str = "") -> Results:
    show(f"The runs of `{os.path.relpath(folder, ROOT)}`. {lacking}".strip())
    return Results(folder, runs, records.with_intervals(records.aggregate(runs), folder))


def measured_costs(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """What the runs of a table cost; raises ReportError where nobody has measured it."""
    costs = records.load_costs(folder, table)
    if costs.empty:
        raise ReportError("none are measured here; `python -m benchmark.cost` writes `results/cost.csv`")
    return costs


def open_key_regions(folder: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy and levels by kept share, of a results folder; raises NothingToShow where no detector was looked at."""
    with needed("`dvc repro` runs it for all pairs; set `PGD_RESULTS` for another folder."):
        table, levels = region_figures.load((folder or results_folder()) / "key_regions")
    show(region_tables.shares_sentence(table))
    return table, levels


def open_dynamics() -> pd.DataFrame:
    """The points of trainings at which distances were measured; raises NothingToShow without any."""
    folder = results_folder()
    with needed("`dvc repro` trains the runs and measures this on the way."):
        return dynamics.load_dynamics(folder, records.load_records(folder, folder.parent / "params.yaml"))


def each_pair(points: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The points of one pair after the other, each below its name where there are several."""
    groups = points.groupby("pair", sort=False)
    for pair, own in groups:
        if len(groups) > 1:
            show(f"### {pair}")
        yield own


def position_shares(points: pd.DataFrame) -> dict[str, float] | None:
    """Shares of the positions by region, as these points' teacher sees them; None, and a sentence, without it."""
    with optional("Without the share of positions", "`dvc repro` brings what it needs."):
        return _views().region_shares(results_folder().parent, points["run"].iloc[0])
    return None


def _views():
    """:mod:`benchmark.probe.views` without the known warnings; its torch and mmdet take a while to load."""
    from benchmark.experiment.quiet import quiet
    from benchmark.probe import views

    quiet()
    return views


def open_teacher() -> tuple[Teacher, Scene]:
    """The first trained teacher and what it sees on the first image; raises NothingToShow where either is missing."""
    views, folder = _views(), results_folder().parent
    with needed("`make teacher` brings the default experiment's in seconds, `dvc repro` trains one."):
        teacher = views.Teacher(folder, views.choose_pair(folder))
        scene = teacher.scene(0)
    k, *xi = (teacher.settings[name] for name in ("topk", "xi_cls", "xi_reg"))
    show(f"Teacher of the pair **{teacher.pair}** (`{teacher.head}`), K = {k}, ξ = {xi[0]:g} and {xi[1]:g}.")
    return teacher, scene


def open_anchor_free(teacher: Teacher) -> Teacher:
    """The first trained teacher that the release reads transposed, else the given one; raises ReportError if broken.

    It displays what the transposed in-box test leaves.
    """
    views, folder = _views(), results_folder().parent
    pair = views.choose_pair(folder, anchor_free=True)
    free = views.Teacher(folder, pair) if pair else teacher
    whose = f"Teacher of the pair **{pair}** (`{free.head}`), K = {free.settings['topk']}."
    if not pair:
        whose = (
            f"No teacher here is anchor-free: the figure applies the swap to the positions of `{free.head}`, which the "
            "release reads in the right order. It shows what FCOS would suffer."
        )
    scenes = [free.scene(i) for i in range(min(6, len(free.ids)))]
    positions, boxes = views.surviving(scenes)
    passed = f"{positions:.0%} of the in-box positions pass the transposed test, {boxes:.0%} of the boxes keep any"
    show(f"{whose} On {len(scenes)} images, {passed}.")
    return free


def sliders(teacher: Teacher) -> dict[str, Widget]:
    """Controls ``image``, ``k`` and ``xi``, which start at the teacher's settings."""
    k, xi, late = teacher.settings["topk"], teacher.settings["xi_cls"], {"continuous_update": False}
    return {
        "image": IntSlider(value=0, min=0, max=len(teacher.ids) - 1, description="image", **late),
        "k": IntSlider(value=k, min=1, max=max(60, k), description="K", **late),
        "xi": FloatSlider(value=xi, min=0, max=1, step=0.1, description="ξ", **late),
    }
