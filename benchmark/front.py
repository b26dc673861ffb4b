"""One page for all experiments, ``results/index.html``: verdicts, key regions, gains.  ``python -m benchmark.front``

Reads committed files only: ``experiments/titles.yaml``, the results of every experiment, ``results/claims.csv`` (which
``python -m benchmark.claims`` writes). Trains nothing and takes seconds.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("front")

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark import region_figures
from benchmark.evidence.captions import CAPTIONS
from benchmark.evidence.claim_rows import load_verdicts
from benchmark.evidence.experiments import Experiment, load_experiments, run_notes
from benchmark.evidence.record import ReportError, read_json
from benchmark.evidence.records import load_costs
from benchmark.evidence.region_tables import shares_sentence
from benchmark.evidence.tables import holds_zero, interval, made, number, overtaken
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.figures import cost as plots_cost
from benchmark.figures.looks import legend_of, lowest, paint
from benchmark.figures.pages import data_uri, link, png, template, write

#: gains that a card shows, the others are folded away; and those that open the page
MANY, FEW = 12, 8
#: whose key regions, and whose gains, open the page
HERO, GAINS = "coco-regions", ("study", "real")
BASES = {
    "both": "Intervals over seeds and images.",
    "images": "One seed: intervals over images alone, so that one without zero is no proof.",
    "seeds": "Intervals over seeds.",
}


def hero(folder: Path) -> dict[str, str]:
    """The figure of AP by kept share, for wide and narrow screens, and what it shows."""
    table, _ = region_figures.load(folder)
    wide, narrow = (data_uri(png(region_figures.accuracy(table, stacked))) for stacked in (False, True))
    images = sorted({read_json(path)["images"] for path in folder.glob("*.json")})
    return {
        "wide": wide,
        "narrow": narrow,
        "alt": "AP against the share of predictions, and of features, that is kept in each box",
        "caption": (
            f"Detectors trained on COCO, on {' or '.join(map(str, images))} photographs of val2017. Solid: the best by "
            "quality are kept in each object's box; dashed: as many at random. Bands: 95% over images, "
            "of the highest. A few predictions are enough, and better than all, as quality is measured against the "
            "ground truth, so that false ones go; of features it takes more."
        ),
    }


def distilled(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that have a gain."""
    return table[table["gain"].notna()]


def by_baseline(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that have a gain: those over one baseline together, the highest first, as gains over others are nothing
    to compare with; the baseline of most runs first."""
    rows = distilled(table).sort_values("gain", ascending=False, kind="stable")
    # baselines in the table's order
    groups = [rows[rows["baseline"] == name] for name in distilled(table)["baseline"].unique()]
    return pd.concat(sorted(groups, key=len, reverse=True)) if groups else rows


def gains(table: pd.DataFrame, among: Collection[str] | None = None) -> tuple[list[dict[str, Any]], float]:
    """The gains of a table (``among``: of these runs) with the places of dot and interval on one scale, and that of
    zero: percent of its length. Beyond the scale (:func:`benchmark.figures.looks.lowest`) there is a mark instead of a
    dot."""
    rows, plain = by_baseline(table), table.set_index("run")["AP"]
    if among is not None:
        rows = rows[rows["run"].isin(among)]
    far = rows["gain"] < lowest(rows["gain"])
    ends = rows.loc[~far, ["gain", "gain_low", "gain_high"]].astype(float)
    low, high = min(0.0, ends.min().min()), max(0.0, ends.max().max())
    length = max(high - low, 1e-9)

    def place(value: float) -> float:
        return round(4 + 92 * (value - low) / length, 2)

    cells = [
        {
            "run": row["run"],
            "over": f"{row['baseline']} ({number(plain[row['baseline']])} AP)",
            "colour": paint(row),
            "gain": number(row["gain"], sign=True),
            "interval": interval(row["gain_low"], row["gain_high"]),
            "at": None if beyond else place(row["gain"]),
            "reach": None
            if beyond or pd.isna(row["gain_low"])
            else (place(row["gain_low"]), round(place(row["gain_high"]) - place(row["gain_low"]), 2)),
            "unresolved": unresolved(row),
        }
        for beyond, (_, row) in zip(far, rows.iterrows(), strict=True)
    ]
    return cells, place(0.0)


def told(runs: Sequence[str], notes: Collection[str]) -> tuple[list[str], list[str]]:
    """The runs whose gains a card shows and those that it folds away, each in their order. Where there are many,
    variations on a method go first: the runs that ``notes`` explain."""
    shown = sorted(runs, key=lambda run: run in notes)[:MANY]
    return [run for run in runs if run in shown], [run for run in runs if run not in shown]


def first(runs: Sequence[str], notes: Collection[str]) -> list[str]:
    """The runs whose gains stand at the top of the page: methods, and variations only where there is nothing else."""
    return ([run for run in runs if run not in notes] or list(runs))[:FEW]


def unresolved(row: Mapping[str, Any]) -> bool:
    """Whether a gain cannot be told from none."""
    return bool(pd.isna(row["gain_low"])) or holds_zero(row)


def note(table: pd.DataFrame, drawn: Iterable[dict[str, Any]]) -> str:
    """What the gains of a card, ``drawn`` as :func:`gains` has them, rest on."""
    rows = distilled(table)
    kinds = [text for name, text in BASES.items() if (rows["interval"] == name).any()]
    if rows["interval"].isna().any():
        kinds.append("Without an interval: one seed, and no resampled images are kept.")
    pale = "Pale: not resolvable with these seeds and images." if any(map(unresolved, rows.to_dict("records"))) else ""
    what = "Gain in AP over the student without a method on the same footing; the line is no gain."
    beyond = "◂: a loss beyond the scale." if any(row["at"] is None for row in drawn) else ""
    return " ".join(filter(None, [what, *kinds, pale, beyond, overtaken(table)]))


def state(one: Experiment) -> str:
    """What an experiment has, where it has no gains to show or not all of them."""
    if one.broken:
        return f"Its records cannot be read: {one.broken}."
    if one.records is None:
        return "" if one.key_regions else "No results here yet: there is no record of any run."
    if (there := len(one.records) - len(one.stale)) < one.expected:
        return f"Under way: {there} of {one.expected} records are there."
    return ""


def warning(one: Experiment) -> str:
    """Which records are of other settings than those that are asked for now."""
    if not one.stale:
        return ""
    first, found = next(iter(one.stale.items()))
    count = len(one.records)
    return (
        f"Stale: {len(one.stale)} of {count} records were trained with other settings than params.yaml asks for now "
        f"({first}: {'; '.join(found)}{', …' if len(one.stale) > 1 else ''})."
    )


def elsewhere(one: Experiment) -> list[dict[str, str]]:
    """What others measured, a row a run of theirs, beside what we have."""
    own = {} if one.records is None else one.records.groupby("run")["AP"].mean()
    rows = []
    for who, records in one.others.items():
        for run in dict.fromkeys(record.run for record in records):
            theirs = [record for record in records if record.run == run]
            gpu, cpu = (theirs[0].environment.get(key) for key in ("gpu", "cpu"))
            rows.append(
                {
                    "who": who,
                    "run": run,
                    "AP": number(sum(record.accuracy["AP"] for record in theirs) / len(theirs)),
                    "seeds": str(len(theirs)),
                    "ours": number(own.get(run, float("nan"))),
                    "machine": str(gpu or cpu or "?"),
                }
            )
    return rows


def links(one: Experiment, page: Path) -> list[tuple[str, str]]:
    """What there is to read of an experiment, as names and relative links."""
    files = {
        "table": one.results / "table.md",
        "CSV": one.results / "table.csv",
        "report page": one.results / "report.html",
        "key regions": one.results / "key_regions_figures" / "accuracy.png",
        "about": one.folder / "README.md" if one.name != "." else None,
        "settings": one.folder / "params.yaml",
    }
    return [(name, link(path, page)) for name, path in files.items() if path is not None and path.is_file()]


def cost(known: Iterable[Experiment]) -> dict[str, str] | None:
    """The figure of gain against the time of a training step, of the first experiment that has measured it."""
    for one in known:
        costs = load_costs(one.results, one.whole) if one.table is not None else None
        if costs is not None and (figure := plots_cost.cost(costs)) is not None:
            return {
                "uri": data_uri(png(figure)),
                "alt": CAPTIONS["cost"][0],
                "seeds": "one seed" if (most := int(one.table["seeds"].max())) == 1 else f"up to {most} seeds",
                "title": one.title.title,
                "id": anchor(one),
            }
    return None


def anchor(one: Experiment) -> str:
    """Where an experiment's card stands on the page."""
    return "default" if one.name == "." else one.name


def card(one: Experiment, page: Path) -> dict[str, Any]:
    """An experiment as the page shows it."""
    runs = [] if one.table is None else by_baseline(one.whole)["run"].tolist()
    notes = run_notes(one.folder / "params.yaml") if runs else {}
    # at the top of the page, in the card, and folded away in it: each on a scale of its own
    parts = [gains(one.whole, part) if part else None for part in (first(runs, notes), *told(runs, notes))]
    regions: Sequence[str] = ()
    if not runs and one.key_regions:
        regions = shares_sentence(region_figures.load(one.key_regions)[0]).replace("**", "").split("\n\n")
    return {
        "id": anchor(one),
        "title": one.title.title,
        "sentence": one.title.sentence,
        "state": state(one),
        "warning": warning(one),
        "count": len(runs),
        "gains": parts,
        "run_notes": notes,
        "note": note(one.whole, chain.from_iterable(rows for rows, _ in filter(None, parts))) if runs else "",
        "elsewhere": elsewhere(one),
        "regions": regions,
        "made": "" if one.records is None else made(one.records),
        "links": links(one, page),
    }


def opening(cards: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The cards whose gains open the page: another's only where none of them has any."""
    with_gains = {name: one for name, one in cards.items() if one["count"]}
    return [with_gains[name] for name in GAINS if name in with_gains] or list(with_gains.values())[:1]


def front(experiments: Iterable[Experiment], claims: Path, page: Path) -> str:
    """The page, as it stands at ``page``."""
    known = list(experiments)
    shown = next((one.key_regions for one in known if one.name == HERO and one.key_regions), None)
    cards = {one.name: card(one, page) for one in known}
    return template("index.html").render(
        **load_verdicts(claims),
        claims_link=link(claims.with_suffix(".md"), page),
        hero=hero(shown) if shown else None,
        opening=opening(cards),
        cost=cost(known),
        cards=list(cards.values()),
        places=legend_of(row for one in known if one.table is not None for _, row in distilled(one.table).iterrows()),
    )


def main() -> None:
    args = command_parser("front").parse_args()
    page = args.out / "index.html"
    write(page, front(load_experiments(args.experiments), args.claims, page))
    print(f"{page} written")


if __name__ == "__main__":
    run_cli(main, ReportError, region_figures.FigureError, json.JSONDecodeError)
