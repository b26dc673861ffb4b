"""The verdicts of ``results/claims.csv`` as the front page shows them: a row a claim, its measurements below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.evidence.claims import CONTRADICTED, NOT_MEASURED, NOT_TESTABLE, REPRODUCED, UNDECIDED, telling
from benchmark.evidence.record import ReportError
from benchmark.evidence.tables import MISSING, interval, number

#: verdicts that an interval gave, in the order in which claims are told
DECIDED = (REPRODUCED, CONTRADICTED, UNDECIDED)
#: those of claims that wait
WAITING = (NOT_MEASURED, NOT_TESTABLE)


def claim_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Claims in their order, each with its measurements as text, how these came out, and the one that speaks for it."""
    return [
        {
            "claim": claim,
            "rows": [cells(row) for _, row in rows.iterrows()],
            "count": len(rows),
            "counts": counts(rows),
            "shown": cells(rows.iloc[0] if (one := telling(rows)) is None else one),
        }
        for claim, rows in table.groupby("claim", sort=False)
    ]


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A measurement as text."""
    return {
        "where": row["where"] if pd.notna(row["where"]) else MISSING,
        "published": row["published"] if pd.notna(row["published"]) else "",
        "value": measured(row),
        "interval": interval(row["low"], row["high"]) if pd.notna(row["low"]) else "",
        "bound": f"must exceed {number(row['bound'], sign=True)}" if pd.notna(row["low"]) and row["bound"] else "",
        "verdict": row["verdict"],
        "kind": kind(row["verdict"]),
    }


def measured(row: Mapping[str, Any]) -> str:
    """A figure with what it is of, short enough for a phone."""
    if pd.isna(row["value"]):
        return MISSING
    return f"{number(row['value'], sign=True)} {row['unit']}".replace(" % of the gap", "% of gap")


def kind(verdict: str) -> str:
    """How a verdict looks: as itself where an interval gave it."""
    return verdict if verdict in DECIDED else "open"


def counts(table: pd.DataFrame) -> list[tuple[str, str, int]]:
    """How many measurements have each verdict: the word, how it looks, and the number; the decided first."""
    found = table["verdict"].value_counts()
    words = [*(word for word in DECIDED if word in found), *(word for word in found.index if word not in DECIDED)]
    return [(word, kind(word), int(found[word])) for word in words]


def load_verdicts(path: Path) -> dict[str, Any]:
    """The table of verdicts: what was decided first, what waits, and how many there are of each verdict."""
    if not path.is_file():
        return {"claims": None, "waiting": [], "counts": []}
    try:
        table = pd.read_csv(path, dtype={"published": str})
        rank = table["verdict"].map({word: k for k, word in enumerate(DECIDED)}).fillna(len(DECIDED))
        # a claim stands where its best decided measurement puts it
        table = table.loc[rank.groupby(table["claim"]).transform("min").sort_values(kind="stable").index]
        waits = table["verdict"].isin(WAITING)
        return {"claims": claim_rows(table[~waits]), "waiting": claim_rows(table[waits]), "counts": counts(table)}
    except (KeyError, ValueError) as error:
        raise ReportError(f"{path} is not what `python -m benchmark.claims` writes: {error}") from None
