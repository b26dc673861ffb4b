"""What the key-region analysis found, in sentences and as a table. Takes what `plots_regions.load` gives."""

from __future__ import annotations

import pandas as pd

from benchmark.evidence.tables import number
from benchmark.region_figures import HOLLOW, MODE_TITLES, SELECTION_NAMES

#: share of the whole's AP that "enough" means
ENOUGH = 0.99


def means(table: pd.DataFrame) -> pd.DataFrame:
    """AP by detector, mode and selection (rows, in order of appearance) and percent (columns); mean over draws."""
    keys = ["name", "mode", "selection", "percent"]
    return table.groupby(keys, sort=False)["AP"].mean().unstack("percent").sort_index(axis="columns")


def shares_sentence(table: pd.DataFrame) -> str:
    """A sentence a detector: how few of a box's predictions give 99% of its AP, and what as many at random give.

    Of detectors of which the whole was measured, too.
    """
    averages, sentences = means(table), []
    for name in table["name"].unique():
        curve = table[(table["name"] == name) & (table["mode"] == "predictions") & (table["selection"] == "top")]
        curve = curve.dropna(subset="AP").set_index("percent").sort_index()
        if 100 not in curve.index:
            continue
        whole = curve["AP"][100]
        few = curve.index[curve["AP"] >= ENOUGH * whole][0]
        best = curve.loc[few]
        if best["below_one"] > HOLLOW:
            what = "the one best prediction of each box gives"
        else:
            what = f"the best {few:g}% of each box's predictions ({best['kept_per_box']:.1f} on average) give"
        sentence = f"**{name}**: {what} {number(best['AP'])} COCO AP, all give {number(whole)}"
        if (name, "predictions", "random") in averages.index:
            sentence += f"; as many at random {number(averages.loc[(name, 'predictions', 'random'), few])}"
        share = best["kept"] / best["in_box"]
        sentences.append(f"{sentence}. They are {share:.1%} of what lies in boxes.")
    return "\n\n".join(sentences)


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The averages as text cells, a column a percentage."""
    averages = means(table)
    words = [
        {"Detector": name, "Mode": MODE_TITLES[mode], "Kept": SELECTION_NAMES[selection]}
        for name, mode, selection in averages.index
    ]
    figures = averages.map(number).rename(columns=lambda percent: f"{percent:g}%")
    return pd.concat([pd.DataFrame(words), figures.reset_index(drop=True)], axis=1)
