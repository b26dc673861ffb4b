"""Tables and sentences as text cells, for Markdown, the page and the notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from benchmark.evidence.markdown import markdown_table
from benchmark.evidence.record import TEACHER
from benchmark.evidence.records import COST_SPREAD, FIRST_STAGE, paired

#: hexadecimal digits of a commit that are shown
SHORT = 7
#: What a reader calls the kinds of metric.
KIND_NAMES = {"coco": "COCO's metric", "crowdhuman": "CrowdHuman's metric"}
#: Columns of words, to the left; all others hold numbers.
WORDS = ("Run", "Pair", "Method", "Inherits", "outcome", "Claim", "Where", "Verdict", "All")
MISSING = "\u2013"  # an en dash, in every table
MINUS = "\u2212"
#: of a gain whose interval holds zero
UNRESOLVED = "not resolved"


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number for reading; a dash when there is none."""
    if pd.isna(value):
        return MISSING
    # what rounds to zero has no minus
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def probability(value: float) -> str:
    """A p-value; small ones by what they are below."""
    return "<0.01" if value < 0.01 else number(value, 2)


def share(value: float) -> str:
    """A share, or a chance, in percent; a dash where there is none."""
    return MISSING if pd.isna(value) else f"{value:.0%}"


def spread(mean: float, sd: float, sign: bool = False) -> str:
    """Mean and standard deviation, the latter only where there is one (not for a single seed)."""
    return number(mean, sign=sign) + ("" if pd.isna(sd) else f" ± {number(sd)}")


def interval(low: float, high: float) -> str:
    """The ends of an interval of a difference."""
    return MISSING if pd.isna(low) else f"[{number(low, sign=True)}, {number(high, sign=True)}]"


def method_name(row: Mapping[str, str]) -> str:
    """What a reader calls the method of a row."""
    return TEACHER if row["role"] == TEACHER else row["method_title"]


def plain_name(row: Mapping[str, str]) -> str:
    """The same, with what a run without a method inherits."""
    inherits = row["role"] != TEACHER and row["method"] == "none" and row["inherit"] != "none"
    return f"none, inherits {row['inherit']}" if inherits else method_name(row)


def by_gain(table: pd.DataFrame) -> pd.DataFrame:
    """The aggregated rows pair by pair: teacher, then by length of the training, longest first, as a gain of another
    length is nothing to compare with: runs without a gain, then gains, highest first, those of students that inherit
    before others, as their baselines differ."""
    pairs = {pair: k for k, pair in enumerate(dict.fromkeys(table["pair"]))}
    keys = pd.DataFrame(
        {
            "pair": table["pair"].map(pairs),
            "student": table["role"] != TEACHER,
            "iterations": -table["iterations"],
            "alone": table["gain"].notna() & (table["inherit"] == "none"),
            "gain": -table["gain"].astype(float),
        },
        index=table.index,
    )
    return table.loc[keys.sort_values([*keys], na_position="first", kind="stable").index]


def holds_zero(row: Mapping, name: str = "gain") -> bool:
    """Whether the interval of a difference holds zero, so that it cannot be told from none; no interval holds none."""
    return bool(row[f"{name}_low"] <= 0 <= row[f"{name}_high"])


def outcome(row: Mapping) -> str:
    """What the interval of a gain says in a word."""
    if pd.isna(row["gain"]):
        return MISSING
    if pd.isna(row["gain_low"]):
        return "no interval"
    if holds_zero(row):
        return UNRESOLVED
    return ("gain" if row["gain_low"] > 0 else "loss") + (", one seed" if row["interval"] == "images" else "")


def varied(table: pd.DataFrame) -> set[str]:
    """Of ``pair``, ``inherit`` and ``seeds`` what differs between runs; what is the same for all needs no column.

    Inheriting counts where methods do: of runs without one their method's name says it (:func:`plain_name`).
    """
    students = table[table["role"] != TEACHER]
    methods = students[students["method"] != "none"]
    rows = {"pair": table, "inherit": methods, "seeds": students}
    return {name for name, own in rows.items() if own[name].nunique() > 1}


def constants(table: pd.DataFrame) -> str:
    """A sentence of what is the same for all runs and so has no column."""
    differs, students = varied(table), table[table["role"] != TEACHER]
    methods = students[students["method"] != "none"]
    parts = []
    if "pair" not in differs:
        parts.append(f"pair {table['pair'].iloc[0]}")
    if "seeds" not in differs and len(students):
        count = students["seeds"].iloc[0]
        parts.append(f"{count} {'seed' if count == 1 else 'seeds'} a run")
    if "inherit" not in differs and len(methods):
        parts.append(f"runs with a method inherit {methods['inherit'].iloc[0].replace('none', 'nothing')}")
    return f"For all: {', '.join(parts)}." if parts else ""


def resolution(table: pd.DataFrame) -> str:
    """A sentence of how small a gain these seeds and images would see; nothing where there are no several seeds."""
    seen = table["gain_seen"].dropna() if "gain_seen" in table else pd.Series(dtype=float)
    if seen.empty:
        return ""
    low, high = number(seen.min()), number(seen.max())
    most = low if low == high else f"{low} to {high}, run by run,"
    return f"A true gain of {most} would be told from none four times in five."


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The aggregated rows of one kind of metric as text cells; what is the same for all has no column."""
    kind, differs = table["metric"].iloc[0], varied(table)
    with_p = "gain_p" in table and table["gain_p"].notna().any()
    return pd.DataFrame(
        {
            "Run": row["run"],
            **({"Pair": row["pair"]} if "pair" in differs else {}),
            "Method": method_name(row) if "inherit" in differs else plain_name(row),
            **({"Inherits": row["inherit"]} if "inherit" in differs else {}),
            **({"Seeds": str(row["seeds"])} if "seeds" in differs else {}),
            "AP": spread(row["AP"], row["AP_sd"]),
            "gain": spread(row["gain"], row["gain_sd"], sign=True),
            "gain 95%": interval(row["gain_low"], row["gain_high"]),
            **({"p": probability(row["gain_p"]), "better": share(row["gain_chance"])} if with_p else {}),
            "outcome": outcome(row),
            **_accuracy(row, kind),
            **(_miss_rate(row) if kind == "crowdhuman" else {}),
        }
        for _, row in table.iterrows()
    )


def _accuracy(row: pd.Series, kind: str) -> dict[str, str]:
    if kind == "crowdhuman":
        return {"MR ↓": spread(row["MR"], row["MR_sd"]), "JI": spread(row["JI"], row["JI_sd"])}
    names = {"AP50": "AP50", "AP75": "AP75", "AP_S": "AP_small", "AP_M": "AP_medium", "AP_L": "AP_large"}
    return {title: number(row[name]) for title, name in names.items()}


def _miss_rate(row: pd.Series) -> dict[str, str]:
    change = spread(row["MR_change"], row["MR_change_sd"], sign=True)
    return {"MR change": change, "MR change 95%": interval(row["MR_change_low"], row["MR_change_high"])}


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`benchmark.evidence.records.load_costs` as text cells, the highest gain first."""
    table = table.sort_values("gain", ascending=False, na_position="first", kind="stable")
    before = [number(seconds, 0) for seconds in table.get(FIRST_STAGE, ())]
    quartiles = table.reindex(columns=COST_SPREAD).astype(float)
    step_time = "step time / alone" + (" [quartiles]" if quartiles.notna().any(axis=None) else "")
    return pd.DataFrame(
        {
            "Run": table["run"],
            "Method": [method_name(row) for row in table.to_dict("records")],
            "gain": [number(gain, sign=True) for gain in table["gain"]],
            step_time: [
                number(ratio, 2) + ("" if pd.isna(low) else f" [{number(low, 2)}, {number(high, 2)}]")
                for ratio, (low, high) in zip(table["step_ratio"], quartiles.to_numpy(), strict=True)
            ],
            "extra memory (MB)": [number(megabytes, 0, sign=True) for megabytes in table["extra_mb"]],
            **({"first stage (s)": before} if before else {}),
            "extra parameters": [f"{round(count):,}" for count in table["extra_parameters"]],
        }
    )


def pulls(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`benchmark.evidence.pull.pull` that have a method, as text cells, the hardest first."""
    table = table[table["start"] > 0].sort_values("end", ascending=False, kind="stable")
    return pd.DataFrame(
        {
            "Run": table["run"],
            "Method": table["method_title"],
            "loss by the detector's, first": [number(ratio, 2) for ratio in table["start"]],
            "at the end": [number(ratio, 2) for ratio in table["end"]],
            "steps clipped": [share(clipped) for clipped in table["clipped"]],
            "outcome": table["flag"],
        }
    )


def differences(records: pd.DataFrame, table: pd.DataFrame, metric: str = "AP") -> pd.DataFrame:
    """What each run has more of a metric than its baseline, one column a seed, as text cells."""
    rows = []
    for _, row in table[table["gain"].notna()].iterrows():
        by_seed = paired(records, row["run"], row["baseline"], metric)
        seeds = {f"seed {seed}": number(value, 2, sign=True) for seed, value in by_seed.items()}
        rows.append({"Run": row["run"], "minus": row["baseline"], **seeds})
    return pd.DataFrame(rows, columns=None if rows else ["Run", "minus"]).fillna(MISSING)


def markdown(cells: pd.DataFrame) -> str:
    """A Markdown table of text cells; columns of numbers to the right."""
    return markdown_table(list(cells.columns), cells.values.tolist(), WORDS)


def gains_sentence(table: pd.DataFrame) -> str:
    """A sentence a pair: teacher, the distilled run with the highest mean AP, what it is compared with, and PGD with
    its gain."""
    several = table["pair"].nunique() > 1
    sentences = []
    for pair, rows in table.groupby("pair", sort=False):
        parts = [f"the teacher reaches {_figures(row)}" for _, row in rows[rows["role"] == TEACHER].iterrows()]
        distilled = rows[rows["gain"].notna()]
        if len(distilled):
            best = distilled.loc[distilled["AP"].idxmax()]
            plain = rows.set_index("run").loc[best["baseline"]]
            parts.append(f"of the distilled students '{best['run']}' is highest with {_figures(best)}")
            parts.append(f"without a method, on the same footing, '{best['baseline']}' has {_figures(plain)}")
            own = distilled[distilled["method"] == "pgd"]
            if len(own):
                # the first that params.yaml names: others are changes of it
                parts.append(_pgd(own.loc[own.index.min()]))
        if parts:
            text = "; ".join(parts)
            sentences.append(f"{pair}: {text}." if several else f"{text[0].upper()}{text[1:]}.")
    return " ".join(sentences)


def overtaken(table: pd.DataFrame) -> str:
    """A sentence of the pairs in which a student without a method is as good as its teacher, in which gains say nothing
    of what a better one would teach; empty where none is."""
    parts = []
    for pair, rows in table.groupby("pair", sort=False):
        teacher, plain = rows.loc[rows["role"] == TEACHER, "AP"].mean(), rows[rows["method"] == "none"]
        best = plain.loc[plain["role"] != TEACHER, "AP"].max()
        if best >= teacher:
            parts.append(f"{pair}: {number(best)} AP, teacher {number(teacher)}")
    return f"Students without a method overtake their teacher ({'; '.join(parts)})." if parts else ""


def chances(kinds: Iterable[str | None]) -> str:
    """Over what intervals are, where all are alike: one over images alone says nothing of another seed."""
    names = {"both": " over seeds and images", "images": " over images, one seed", "seeds": " over seeds"}
    known = {kind for kind in kinds if isinstance(kind, str)}
    return names[known.pop()] if len(known) == 1 else ""


def _pgd(row: pd.Series) -> str:
    """What PGD gains."""
    over = chances([row["interval"]])
    reach = "" if pd.isna(row["gain_low"]) else f" {interval(row['gain_low'], row['gain_high'])} (95%{over})"
    return f"PGD ('{row['run']}') has {_figures(row)}, a gain of {number(row['gain'], sign=True)}{reach}"


def _figures(row: pd.Series) -> str:
    text = f"{spread(row['AP'], row['AP_sd'])} AP"
    return text if row["metric"] == "coco" else f"{text} (MR {spread(row['MR'], row['MR_sd'])})"


def made(records: pd.DataFrame) -> str:
    """Where the records come from: data, the code with its day, machine, and the time that it took."""
    revisions, days = [text[:SHORT] for text in _values(records, "environment.git_revision")], _days(records)
    if revisions and days:
        revisions[-1] += f" ({days})"
    parts = {
        "data": _values(records, "dataset"),
        "revisions" if len(revisions) > 1 else "revision": revisions,
        "torch": _values(records, "environment.torch"),
        "on": _machines(records),
    }
    minutes = records["train_seconds"].sum() / 60
    time = f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.0f} hours"
    told = "; ".join(f"{name} {', '.join(found)}" for name, found in parts.items() if found)
    return f"Records: {told}; {time} of training in all."


def machine(records: pd.DataFrame) -> str | None:
    """Processor and day of the code of some records, to tell one set of figures from another; None where unknown."""
    processors, days = ", ".join(_machines(records)), _days(records)
    return f"{processors}, code of {days}" if processors and days else None


def _values(records: pd.DataFrame, name: str) -> list[str]:
    return [str(value) for value in dict.fromkeys(records.get(name, pd.Series(dtype=object)).dropna())]


def _machines(records: pd.DataFrame) -> list[str]:
    return _values(records, "environment.gpu") or _values(records, "environment.cpu")


def _days(records: pd.DataFrame) -> str:
    """The day of the code, or the first and the last one; empty where no record tells it."""
    days = sorted(_values(records, "code_date"))
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""
