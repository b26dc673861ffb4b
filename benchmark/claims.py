"""What the paper claims and what came out here: ``results/claims.md`` and ``.csv``.  ``python -m benchmark.claims``

Reads ``experiments/claims.yaml`` and the committed records of all experiments; trains nothing and takes seconds. What
each claim came to also goes into README.md, between ``<!-- found -->`` and ``<!-- /found -->``.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("claims")

from collections.abc import Mapping

import pandas as pd

from benchmark.evidence.claims import (
    CONTRADICTED,
    NOT_TESTABLE,
    REPRODUCED,
    UNDECIDED,
    Claim,
    load_claims,
    telling,
    verdicts,
)
from benchmark.evidence.experiments import Experiment, load_experiments
from benchmark.evidence.record import TEACHER, ReportError
from benchmark.evidence.tables import MISSING, interval, markdown, number
from benchmark.experiment.cli import command_parser, run_cli

HEAD = """# Claims and verdicts

Written by `python -m benchmark.claims` from [experiments/claims.yaml](../experiments/claims.yaml) and the committed
records; the rules are in [docs/protocol.md](../docs/protocol.md). A verdict holds for the setting that it was measured
in and says nothing of COCO unless the row names it. Differences are in percentage points with intervals of 95%: over
seeds and images for trainings, over images alone for key regions of one trained detector.

"""

#: what README.md holds the claims between
START, END = "<!-- found -->", "<!-- /found -->"
#: rows of its table
ROWS = 8
#: rows of its table of gains at most, and whose they are
GAINS, SHOWN = 10, "study"


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The verdicts as text cells, one row a measurement."""
    return pd.DataFrame(
        {
            "Where": row["where"] if pd.notna(row["where"]) else MISSING,
            "published": row["published"] if pd.notna(row["published"]) else MISSING,
            "measured": measured(row),
            "95%": interval(row["low"], row["high"]),
            "seeds": MISSING if pd.isna(row["seeds"]) else f"{row['seeds']:.0f}",
            "Verdict": f"**{row['verdict']}**",
        }
        for _, row in table.iterrows()
    )


def measured(row: Mapping) -> str:
    """A figure with what it is of, and its bound where that is not zero."""
    if pd.isna(row["value"]):
        return MISSING
    text = f"{number(row['value'], sign=True)} {row['unit']}"
    return text if not row["bound"] else f"{text} (bound {number(row['bound'], sign=True)})"


def sections(claims: Mapping[str, Claim], table: pd.DataFrame) -> str:
    """The page: claim by claim what was measured."""
    parts = [HEAD]
    for title, own in (("The paper's claims", True), ("Further questions", False)):
        names = [name for name, claim in claims.items() if claim.paper == own]
        if names:
            parts.append(f"## {title}\n\n")
        for name in names:
            claim, rows = claims[name], table[table["name"] == name]
            parts.append(f"### {claim.claim}\n\nSource: {claim.source}. {claim.note}".rstrip() + "\n\n")
            if claim.measured:
                parts.append(markdown(cells(rows)) + "\n")
            if claim.needs:
                parts.append(f"**{NOT_TESTABLE.capitalize()}**: {claim.needs}\n\n")
    return "".join(parts).rstrip() + "\n"


def gains(one: Experiment) -> str:
    """The tables of README.md: the students of an experiment's first pair, the best first, and what methods gain in
    the others; empty where nothing is measured.

    Of a method's runs with other settings the first that ``params.yaml`` names; runs whose records, or whose
    baseline's, are of other settings than it asks for now are left out.
    """
    if one.whole is None:
        return ""
    stale = one.records.loc[one.records["key"].isin(one.stale), "run"]
    known = one.whole[~(one.whole["run"].isin(stale) | one.whole["baseline"].isin(stale))]
    students = known[known["role"] != TEACHER].drop_duplicates(["pair", "method", "inherit"])
    if students.empty:
        return ""
    first = students[students["pair"] == students["pair"].iloc[0]].sort_values("AP", ascending=False, kind="stable")
    rows = pd.DataFrame(
        {
            "Run": row["run"],
            "inherits": MISSING if row["inherit"] == "none" else row["inherit"],
            "AP": number(row["AP"]),
            "gain": number(row["gain"], sign=True),
            "95%": interval(row["gain_low"], row["gain_high"]),
            "seeds": f"{row['seeds']:.0f}",
        }
        for _, row in first.head(GAINS).iterrows()
    )
    footing = "Gain: over the student without a method that inherits the same."
    return f"{one.title.title}: {one.title.sentence} {footing}\n\n{markdown(rows)}\n{other_pairs(students)}"


def other_pairs(students: pd.DataFrame) -> str:
    """What methods add to a student that inherits, a row for each pair but the first; empty where there is no other."""
    rows = []
    for pair, group in students.groupby("pair", sort=False):
        inheriting = group[group["inherit"] != "none"].set_index("method")
        alone = group[(group["inherit"] == "none") & (group["method"] == "none")]
        if pair == students["pair"].iloc[0] or "none" not in inheriting.index:
            continue
        plain = {"alone": number(alone["AP"].mean()), "inheriting": number(inheriting["AP"]["none"])}
        gained = {
            row["method_title"]: f"{number(row['gain'], sign=True)} {interval(row['gain_low'], row['gain_high'])}"
            for _, row in inheriting.drop(index="none").sort_index().iterrows()
        }
        rows.append({"Pair": pair, **plain, **gained})
    if not rows:
        return ""
    cells = pd.DataFrame(rows).fillna(MISSING)
    return f"Other detectors: AP alone, inheriting, and what a method adds to that.\n\n{markdown(cells)}\n"


def found(table: pd.DataFrame, gained: str = "") -> str:
    """What README.md shows: of each claim the measurement that speaks for it, decided claims first, and how all of
    them came out.

    Args:
        table: of :func:`benchmark.evidence.claims.verdicts`.
        gained: of :func:`gains`.
    """
    rows = []
    for _, claim in table.groupby("name", sort=False):
        shown = telling(claim)
        if shown is None:
            continue
        # the others of the claim are on the page: here a reader shall see that not all came out alike
        counts = claim["verdict"].value_counts()
        others = [f"{counts[one]} {one}" for one in (REPRODUCED, CONTRADICTED, UNDECIDED) if one in counts]
        rows.append(
            {
                "Claim": shown["claim"],
                "Where": shown["where"],
                "measured": f"{measured(shown)} {interval(shown['low'], shown['high'])}",
                "Verdict": f"**{shown['verdict']}**",
                "All": ", ".join(others),
            }
        )
    rows.sort(key=lambda row: row["Verdict"] == f"**{UNDECIDED}**")
    body = markdown(pd.DataFrame(rows[:ROWS])) if rows else "Nothing is measured yet.\n"
    more = "Every claim, its source, its bound and what is open: [results/claims.md](results/claims.md).\n"
    return f"{body}\n{gained}{more}"


def with_found(readme: str, block: str) -> str:
    """README.md with another block between its two marks; :class:`ReportError` where these are not once in it."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in after or END in after:
        raise ReportError(f"README.md needs one line `{START}` and one `{END}` below it: put them in")
    return f"{before}{START}\n{block}{END}{after}"


def main() -> None:
    args = command_parser("claims").parse_args()
    claims = load_claims(args.experiments / "claims.yaml")
    table = verdicts(claims, args.experiments)
    args.out.mkdir(parents=True, exist_ok=True)
    table.round(3).to_csv(args.out / "claims.csv", index=False, lineterminator="\n")
    (args.out / "claims.md").write_text(sections(claims, table), encoding="utf-8")
    shown = next((one for one in load_experiments(args.experiments) if one.name == SHOWN), None)
    gained = gains(shown) if shown else ""
    readme = args.readme.read_text(encoding="utf-8")
    args.readme.write_text(with_found(readme, found(table, gained)), encoding="utf-8")
    print(table["verdict"].value_counts().to_string())


if __name__ == "__main__":
    run_cli(main, ReportError, FileNotFoundError)
