"""Stage `report`: tables, figures and one page from the records of all runs.  ``python -m benchmark.report``

What is not there (runs that were not trained yet, curves, costs, detections to be drawn) is left out, which the page
and the command say: committed records alone make a page. A broken file stops it with one line that names it.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("report")

import json
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.evidence import tables
from benchmark.evidence.captions import CAPTIONS, SAMPLES
from benchmark.evidence.experiments import ROOT_NAME, load_titles, run_notes
from benchmark.evidence.intervals import with_bootstrap
from benchmark.evidence.lengths import shortened, whole
from benchmark.evidence.present import can_be_pictured, curves_there, records_there
from benchmark.evidence.published import CAVEAT, published
from benchmark.evidence.pull import BAND, pull
from benchmark.evidence.record import CLASS, METRICS, TEACHER, ReportError, read_json
from benchmark.evidence.records import COSTS, FOOTING, METHOD, aggregate, by_kind, load_costs, metrics_of
from benchmark.evidence.tables import markdown, number
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.workspace import ROOT
from benchmark.figures import ablation as plots_ablation
from benchmark.figures import cost as plots_cost
from benchmark.figures import plots, samples
from benchmark.figures import schedule as plots_schedule
from benchmark.figures.page_tables import blocks, classes, commits, words
from benchmark.figures.pages import data_uri, link, png, template, write
from benchmark.verdict import sides, verdict

#: the analyses; the stage `notebooks` runs them
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
#: what each experiment is called, in its repository
TITLES = "experiments/titles.yaml"
SEED_COLUMNS = ("run", "seed", "role", "method", *FOOTING)
#: of what a record says of the machine
ENVIRONMENT = "environment."


def csv(table: pd.DataFrame) -> str:
    """CSV with four decimals at most, so that a diff shows what changed."""
    return table.round(4).to_csv(index=False, float_format="%.10g", lineterminator="\n")


def metrics(records: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Accuracy by run and seed, for ``dvc metrics``; what could not be measured is left out."""
    return {
        record["key"]: {name: round(record[name], 3) for name in METRICS[record["metric"]] if pd.notna(record[name])}
        for record in records.to_dict("records")
    }


def distinct(values: pd.Series) -> str:
    """The different values of a column, in order of appearance."""
    return ", ".join(dict.fromkeys("none" if pd.isna(value) else str(value) for value in values))


def settings(records: pd.DataFrame) -> dict[str, dict[str, str]]:
    """For each run all that was recorded but for accuracy and environment; all values where seeds differ."""
    accuracy = metrics_of(records)
    elsewhere = (key for key in records if key.startswith((CLASS, ENVIRONMENT)))
    skip = {"key", "run", "metric", *METHOD[1:], *accuracy, *elsewhere}
    table = {}
    for run, group in records.groupby("run", sort=False):
        present = group.drop(columns=[key for key in group if key in skip]).dropna(axis=1, how="all")
        table[run] = {key: distinct(readable(present[key])) for key in present}
        for name in accuracy if group["metric"].iloc[0] == "crowdhuman" else ("AP",):
            if group[name].notna().any():
                table[run][f"{name} by seed"] = ", ".join(number(value) for value in group[name])
    return table


def readable(column: pd.Series) -> pd.Series:
    """Floats without a long tail, and without a point where they are whole; lists as text."""

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return " ".join(str(text(one)) for one in value) or "none"
        return f"{value:.10g}" if isinstance(value, float) else value

    return column.map(text)


def repository(folder: Path) -> Path:
    """The repository that an experiment's folder lies in; this module's own for a folder outside of any.

    A page links to files of the former: who runs it may have imported this package from another checkout.
    """
    found = (one for one in (folder, *folder.parents) if (one / "pyproject.toml").is_file() and (one / "pgd").is_dir())
    return next(found, ROOT)


def page(
    records: pd.DataFrame,
    table: pd.DataFrame,
    costs: pd.DataFrame,
    followed: pd.DataFrame,
    images: dict[str, bytes],
    outcome: tuple[bool | None, str],
    shown_tables: list[dict[str, Any]],
    lacking: list[str],
    results: Path,
    params: Path,
) -> str:
    """The self-contained HTML page."""
    passed, text = outcome
    students = table["role"] != TEACHER
    folder, own = params.resolve().parent, results / "report.html"
    root = repository(folder)
    index = root / "results" / "index.html"
    title = load_titles(root / TITLES).get(ROOT_NAME if folder == root else folder.name)
    return template("report.html").render(
        title=title,
        index=link(index, own) if index.is_file() else None,
        folder=folder.relative_to(root).as_posix() if folder.is_relative_to(root) else ".",
        readme=link(readme, own) if folder != root and (readme := folder / "README.md").is_file() else None,
        run_notes=run_notes(params),
        run_words=words(table),
        run_commits=commits(records),
        dataset=distinct(records["dataset"]),
        detector=distinct(records["detector"]),
        seeds=int(table.loc[students, "seeds"].max()) if students.any() else 0,
        runs=int(students.sum()),
        teachers=int((~students).sum()),
        headline=" ".join(filter(None, [tables.gains_sentence(full := whole(table, records)), tables.overtaken(full)])),
        made=tables.made(records),
        lacking=lacking,
        verdict={True: "yes", False: "no", None: ""}[passed],
        verdict_text=text.splitlines()[0],
        words=tables.WORDS,
        unresolved=tables.UNRESOLVED,
        tables=shown_tables,
        classes=classes(records, whole(table, records)),
        costs=tables.costs(costs) if len(costs) else None,
        pulls=pulls if len(pulls := tables.pulls(pull(followed, results))) else None,
        band=BAND,
        figures=[
            {"name": name, "alt": alt, "caption": caption, "uri": data_uri(images[name])}
            for name, (alt, caption) in captions(records).items()
            if name in images
        ],
        settings=settings(records),
        environment={
            key.removeprefix(ENVIRONMENT): distinct(records[key]) for key in records if key.startswith(ENVIRONMENT)
        },
        published=published(set(records["metric"])),
        caveat=CAVEAT,
        notebooks={path.stem: link(path, own) for path in sorted((root / NOTEBOOKS.name).glob("*.ipynb"))},
    )


def pictured(records: pd.DataFrame) -> dict[str, tuple[str, dict[str, str]]]:
    """The figures of sample pictures, one a kind of metric: data set and whose detections, title to record.

    Nothing where the first pair of a kind lacks its teacher or has no student yet.
    """
    kinds = list(by_kind(records))
    return {
        "samples" if len(kinds) == 1 else f"samples_{kind}": (rows["dataset"].iloc[0], samples.sample_runs(rows))
        for kind, rows in kinds
        if rows.loc[rows["pair"] == rows["pair"].iloc[0], "role"].nunique() > 1
    }


def captions(records: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Short text and caption of every figure there may be."""
    own = {}
    for name, (_, runs) in pictured(records).items():
        shown = ", ".join(f"{title} ({key})" for title, key in runs.items())
        own[name] = (SAMPLES[0], SAMPLES[1].format(shown=shown))
    return CAPTIONS | own


def figures(
    records: pd.DataFrame, table: pd.DataFrame, costs: pd.DataFrame, curves: pd.DataFrame, work: Path, kept: Path
) -> dict[str, bytes]:
    """Every figure that there is something for, as PNG by name; ``kept``: where those of the report before are, of
    which samples stay where the detections to draw them anew are gone."""
    drawn, before = {}, {}
    short = shortened(records)
    whole = table[~table["run"].isin(short)]
    if (whole["role"] != TEACHER).any():
        drawn["ap"] = plots.ap_by_run(records, whole)
    if curves["AP"].notna().any():
        drawn["curves"] = plots.curves(curves[~curves["run"].isin(short)])
    if short:
        drawn["schedule"] = plots_schedule.schedule(records, table)
    for name, (dataset, runs) in pictured(records).items():
        if can_be_pictured(records, list(runs.values()), work):
            drawn[name] = samples.figure(samples.load_samples(work, dataset, runs))
        elif (there := kept / f"{name}.png").is_file():
            # DVC removes it before it makes a report: this one is committed beside the records
            before[name] = there.read_bytes()
    if (table["metric"] == "crowdhuman").any():
        drawn["mr"] = plots.mr_by_run(records, whole)
    if len(plots_ablation.variants(records)):
        drawn["ablation"] = plots_ablation.ablation(records, table)
    if (figure := plots_cost.cost(costs[~costs["run"].isin(short)])) is not None:
        drawn["cost"] = figure
    return {name: png(figure) for name, figure in drawn.items()} | before


def report(results: Path, work: Path, params: Path) -> str:
    """Write every result; returns the lines that tell about it."""
    records, unrun = records_there(results, params)
    table = tables.by_gain(with_bootstrap(records, aggregate(records), results))
    costs = load_costs(results, table)
    expected = results / "expected.json"
    reference = read_json(expected) if expected.exists() else None
    outcome = verdict(records, reference)
    followed, curves, uncurved = curves_there(results, records)
    images = figures(records, table, costs, curves, work, results / "figures")
    shown = blocks(records, table, results, work, repository(params.resolve().parent))
    undrawn = "" if any("samples" in name for name in images) else "No sample pictures: detections are not kept here."
    lacking = [text for text in (unrun, uncurved, undrawn) if text]
    write(results / "table.csv", csv(table))
    heading = "## {title}\n\n" if len(shown) > 1 else ""
    parts = [
        f"{heading.format(**block)}{markdown(block['cells'])}\n{block['constants']} {block['notes']}\n"
        for block in shown
    ]
    write(results / "table.md", "\n".join([*parts, *([f"{unrun}\n"] if unrun else [])]))
    columns = (*SEED_COLUMNS, *metrics_of(records), *COSTS, "checkpoint_sha256")
    write(results / "seeds.csv", csv(records[[name for name in columns if name in records]]))
    write(results / "metrics.json", json.dumps(metrics(records), indent=2) + "\n")
    write(results / "plots" / "ap.csv", csv(records[["run", "seed", "AP"]]))
    write(results / "plots" / "curves.csv", csv(curves.dropna(subset="AP")[["run", "seed", "step", "AP"]]))
    for name, image in images.items():
        write(results / "figures" / f"{name}.png", image)
    write(results / "verdict.md", outcome[1])
    # of figures of unknown machines it would tell nothing
    told = outcome if sides(records, reference) else (None, outcome[1])
    text = page(records, table, costs, followed, images, told, shown, lacking, results, params)
    write(results / "report.html", text)
    return " ".join([f"{results / 'report.html'} written.", outcome[1].splitlines()[0], *lacking])


def main(argv: list[str] | None = None) -> None:
    """Entry point; exits with 1 and one line on an error."""
    args = command_parser("report").parse_args(argv)
    run_cli(lambda: print(report(args.results, args.work, args.params)), ReportError)


if __name__ == "__main__":
    main()
