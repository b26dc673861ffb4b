"""Stage `report`: tables, figures and one page from the records of all runs.  ``python -m benchmark.report``

Stops with one line that names the file when a record, a curve or the detections of a shown run are missing: a
table that silently lacks a run is worse than none.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from benchmark import plots
from benchmark.cli import run_cli
from benchmark.records import (
    COSTS,
    ENVIRONMENT,
    FOOTING,
    METRICS,
    TEACHER,
    ReportError,
    aggregate,
    headline,
    key_of,
    load_curves,
    load_records,
    load_samples,
    markdown,
    number,
    read_json,
    sample_runs,
    summary,
)
from benchmark.verdict import verdict

#: Figures of others, with their source; they never share a table with ours.
PUBLISHED = {
    "source": "README of ChenhongyiYang/PGD, commit 81c54d5",
    "columns": ["Detector", "Teacher (R101, 3x, multi-scale)", "Student (R50, 1x)", "PGD (R50, 1x)", "gain"],
    "rows": [
        ["FCOS", "43.1", "38.2", "42.5", "+4.3"],
        ["AutoAssign", "44.8", "40.6", "43.8", "+3.2"],
        ["ATSS", "45.5", "39.6", "44.2", "+4.6"],
        ["GFL", "45.8", "40.2", "43.8", "+3.6"],
        ["DDOD", "46.6", "42.0", "45.4", "+3.4"],
    ],
}
NOTES = (
    "All figures in percent. AP: mean ± standard deviation over seeds; the other columns: means over seeds. "
    "Gain: AP minus that of the student without a method on the same footing (same pair, data, detector, backbone, "
    "schedule and inheritance), paired by seed. Inherits: what the student takes over from the teacher "
    "before training. Train min: minutes of training, without those that were interrupted."
)
SEED_COLUMNS = ("run", "seed", "role", "method", *FOOTING, *METRICS, *COSTS, "checkpoint_sha256")
CAPTIONS = {
    "ap": (
        "AP of every run, one dot a seed",
        "AP of every run on the whole validation set. A dot is one seed, the tick their mean; dashed lines "
        "mark the teacher and the student trained alone. In brackets: what the student inherits. The axis "
        "does not start at zero.",
    ),
    "curves": (
        "Loss and AP during training",
        "Training of the students: mean over seeds, the band spans the lowest and the highest seed. The "
        "total loss holds each method's own terms, so only its shape can be compared between methods. AP is "
        "measured on a part of the validation set and differs from the final figures.",
    ),
    "samples": (
        "Ground truth and detections on validation images",
        "The first validation images with at least three objects: ground truth, then what {shown} found with "
        f"a score of {plots.MIN_SCORE} or more. Solid: same class and an IoU of {plots.MIN_IOU} or more with "
        "an object not yet found; dashed red: false; dotted: inside a crowd region.",
    ),
}


def write(path: Path, content: str | bytes) -> None:
    """Write a result with line feeds on every platform, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def csv(table: pd.DataFrame) -> str:
    """CSV with four decimals at most, so that a diff shows what changed."""
    return table.round(4).to_csv(index=False, float_format="%.10g", lineterminator="\n")


def png(figure: Figure) -> bytes:
    """The figure as PNG of 256 colours, without the library's version in it: small, and same data, same bytes."""
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(256).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def metrics(records: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Accuracy by run and seed, for ``dvc metrics``; what could not be measured is left out."""
    return {
        key_of(record): {name: round(record[name], 3) for name in METRICS if pd.notna(record[name])}
        for record in records.to_dict("records")
    }


def distinct(values: pd.Series) -> str:
    """The different values of a column, in order of appearance."""
    return ", ".join(dict.fromkeys("none" if pd.isna(value) else str(value) for value in values))


def settings(records: pd.DataFrame) -> dict[str, dict[str, str]]:
    """For each run all that was recorded but for accuracy and environment; all values where seeds differ."""
    skip = {"run", *METRICS, *ENVIRONMENT}
    table = {}
    for run, group in records.groupby("run", sort=False):
        present = group.drop(columns=[key for key in group if key in skip]).dropna(axis=1, how="all")
        table[run] = {key: distinct(readable(present[key])) for key in present}
        table[run]["AP by seed"] = ", ".join(number(value) for value in group["AP"])
    return table


def readable(column: pd.Series) -> pd.Series:
    """Floats without a long tail, and without a point where they are whole."""
    return column.map(lambda value: f"{value:.10g}" if isinstance(value, float) else value)


def page(
    records: pd.DataFrame,
    table: pd.DataFrame,
    images: dict[str, bytes],
    outcome: tuple[bool | None, str],
    notes: str,
) -> str:
    """The self-contained HTML page."""
    passed, text = outcome
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = ", ".join(f"{title} ({key})" for title, key in sample_runs(records).items())
    cells = summary(table)
    students = table["role"] != TEACHER
    dots = table["method"].map(plots.colour).where(students, "").tolist()
    return environment.get_template("report.html").render(
        dataset=distinct(records["dataset"]),
        detector=distinct(records["detector"]),
        seeds=int(table.loc[students, "seeds"].max()),
        runs=int(students.sum()),
        teachers=int((~students).sum()),
        headline=headline(table),
        verdict={True: "yes", False: "no", None: "none"}[passed],
        verdict_text=text.splitlines()[0],
        columns=list(cells.columns),
        rows=cells.values.tolist(),
        colours=dots,
        notes=notes,
        figures=[
            {"name": name, "alt": alt, "caption": caption.format(shown=shown), "uri": data_uri(images[name])}
            for name, (alt, caption) in CAPTIONS.items()
        ],
        settings=settings(records),
        environment={key: distinct(records[key]) for key in ENVIRONMENT if key in records},
        published=PUBLISHED,
    )


def data_uri(image: bytes) -> Markup:
    """The image inside the page."""
    return Markup("data:image/png;base64," + base64.b64encode(image).decode())


def sizes(work: Path, datasets: Iterable[str]) -> str:
    """What S, M and L mean on each data set."""
    parts = []
    for name in datasets:
        areas = read_json(work / "dataset" / name / "dataset.json")["areas"]
        small, medium = (math.isqrt(round(area)) for area in areas)
        parts.append(f"up to {small}², up to {medium}² and above ({name})")
    return f"S, M, L: objects of an area {'; '.join(parts)}, in pixels."


def report(results: Path, work: Path, params: Path) -> str:
    """Write every result; returns the line that tells about it."""
    records = load_records(results, params)
    table = aggregate(records)
    expected = results / "expected.json"
    outcome = verdict(records, read_json(expected) if expected.exists() else None)
    images = {
        "ap": png(plots.ap_by_run(records)),
        "curves": png(plots.curves(load_curves(results, records))),
        "samples": png(plots.samples(*load_samples(work, records["dataset"].iloc[0], sample_runs(records)))),
    }
    write(results / "table.csv", csv(table))
    notes = f"{NOTES} {sizes(work, records['dataset'].unique())}"
    write(results / "table.md", f"{markdown(summary(table), words=3)}\n{notes}\n")
    write(results / "seeds.csv", csv(records[[name for name in SEED_COLUMNS if name in records]]))
    write(results / "metrics.json", json.dumps(metrics(records), indent=2) + "\n")
    write(results / "plots" / "ap.csv", csv(records[["run", "seed", "AP"]]))
    for name, image in images.items():
        write(results / "figures" / f"{name}.png", image)
    write(results / "verdict.md", outcome[1])
    write(results / "report.html", page(records, table, images, outcome, notes))
    return f"{results / 'report.html'} written. {outcome[1].splitlines()[0]}"


def main(argv: list[str] | None = None) -> None:
    """Entry point; exits with 1 and one line on an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.report", description=__doc__.split("\n\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results"), help="records in, tables out")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder of data set and detections")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="names the runs and seeds")
    args = parser.parse_args(argv)
    run_cli(lambda: print(report(args.results, args.work, args.params)), ReportError)


if __name__ == "__main__":
    main()
