"""What the key-region analysis found, in sentences and as a table. Takes what `plots_regions.load` gives."""

from __future__ import annotations

import pandas as pd

from benchmark.plots_regions import MODE_TITLES, SELECTION_NAMES
from benchmark.tables import number

#: share of the whole's AP that "enough" means
ENOUGH = 0.99


def means(table: pd.DataFrame) -> pd.DataFrame:
    """AP by detector, mode and selection (rows, in order of appearance) and percent (columns); mean over draws."""
    keys = ["name", "mode", "selection", "percent"]
    return table.groupby(keys, sort=False)["AP"].mean().unstack("percent").sort_index(axis="columns")


def headline(table: pd.DataFrame) -> str:
    """A sentence a detector: how few of a box's predictions give 99% of its AP, and what as many at random give."""
    averages, sentences = means(table), []
    for name in table["name"].unique():
        if (name, "predictions", "top") not in averages.index:
            continue
        best, dice = averages.loc[name, "predictions", "top"], averages.loc[name, "predictions", "random"]
        whole = best.iloc[-1]
        few = best.index[best >= ENOUGH * whole][0]
        rows = table[(table["name"] == name) & (table["mode"] == "predictions") & (table["selection"] == "top")]
        count = rows.set_index("percent")["kept_per_box"][few]
        sentences.append(
            f"**{name}**: the best {few:g}% of the predictions in each box (at least one; {count:.1f} on average) give "
            f"{number(best[few])} AP, all of them {number(whole)}; as many at random give {number(dice[few])}."
        )
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
