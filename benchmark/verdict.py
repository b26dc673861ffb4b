"""Did this machine reproduce the committed figures?  ``python -m benchmark.verdict``

Compares the AP of every run and seed with the committed ``results/metrics.json``, or with another file, or
reads what ``dvc metrics diff --json`` prints. The last line says yes or no, as does the exit code.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("verdict")

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.evidence.record import Record, ReportError, read_json
from benchmark.evidence.records import frame
from benchmark.evidence.tables import machine, markdown, number
from benchmark.experiment.cli import command_parser

#: AP. Another CPU rounds differently, which makes a run one of another seed: docs/mini-setting.md argues from the
#: spread of seeds. The same CPU and thread count give the same figures.
TOLERANCE = 1.5
#: AP; metrics.json has three decimals
SAME = 0.0006


def compare(now: Mapping[str, float], reference: Mapping[str, float]) -> pd.DataFrame:
    """One row a reference figure: reference, AP now (NaN if the run is missing) and their difference."""
    rows = [{"run": run, "reference": ap, "now": now.get(run, math.nan)} for run, ap in reference.items()]
    table = pd.DataFrame(rows, columns=["run", "reference", "now"]).astype({"reference": float, "now": float})
    # rounded, so that a difference of just the tolerance is within it
    return table.assign(difference=(table["now"] - table["reference"]).round(6))


def judge(table: pd.DataFrame, tolerance: float) -> tuple[bool, str]:
    """Whether every row lies within the tolerance, and a sentence that says so. No row at all is a no."""
    if table.empty:
        return False, "Not reproduced: there are no figures to compare."
    missing = table.loc[table["difference"].isna(), "run"]
    far = table.loc[table["difference"].abs() > tolerance, "run"]
    if len(missing) or len(far):
        parts = [("outside", far), ("missing", missing)]
        found = "; ".join(f"{word}: {', '.join(runs)}" for word, runs in parts if len(runs))
        return False, f"Not reproduced within ±{tolerance:g} AP of the committed figures ({found})."
    widest = table.loc[table["difference"].abs().idxmax()]
    return True, (
        f"Reproduced: all {len(table)} runs lie within ±{tolerance:g} AP of the committed figures "
        f"(largest difference {number(widest['difference'], 2, sign=True)}, {widest['run']})."
    )


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison as text cells."""
    return pd.DataFrame(
        {
            "Run": table["run"],
            "reference AP": table["reference"].map(lambda value: number(value, 2)),
            "AP now": table["now"].map(lambda value: number(value, 2)),
            "difference": table["difference"].map(lambda value: number(value, 2, sign=True)),
        }
    )


def verdict(records: pd.DataFrame, expected: Mapping[str, Any] | None) -> tuple[bool | None, str]:
    """Records against ``expected.json``: yes or no, and Markdown, the sentence first.

    None without one, and where every figure is the reference's own: to compare trainings with themselves tells nothing.
    """
    if expected is None:
        return None, "No reference figures are committed: nothing to compare with.\n"
    now = dict(zip(records["key"], records["AP"], strict=True))
    reference = expected.get("AP", {})
    table = compare(now, reference)
    passed, sentence = judge(table, expected.get("tolerance_ap", TOLERANCE))
    if len(table) and (table["difference"].abs() < SAME).all():
        return None, "The figures are those of the reference, to the last digit: nothing to compare.\n"
    unknown = [run for run in now if run not in reference]
    rest = f"\nWithout a reference: {', '.join(unknown)}.\n" if unknown else ""
    return passed, f"{sentence}{sides(records, expected)}\n\n{markdown(cells(table))}{rest}"


def sides(records: pd.DataFrame, expected: Mapping[str, Any] | None) -> str:
    """Processor and day of both sides of a comparison with ``expected.json``; empty where one of them is unknown."""
    reference, here = (expected or {}).get("made"), machine(records)
    return f" The committed ones: {reference}; these: {here}." if reference and here else ""


def accepted(results: Path, tolerance: float) -> dict[str, Any]:
    """What `--accept` writes: the figures of ``metrics.json``, and what they were made on where records tell it."""
    ap = ap_of(read_json(results / "metrics.json"))
    paths = [path for key in ap if (path := results / "runs" / f"{key}.json").is_file()]
    made = machine(frame([Record.read(path) for path in paths])) if paths else None
    return {"tolerance_ap": tolerance, **({"made": made} if made else {}), "AP": ap}


def ap_of(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The APs of a ``metrics.json``."""
    return {run: values["AP"] for run, values in metrics.items()}


def committed(metrics: Path) -> dict[str, Any]:
    """The file as the last commit holds it."""
    command = ["git", "-C", str(metrics.parent), "show", f"HEAD:./{metrics.name}"]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise ReportError(f"no committed {metrics}: {answer.stderr.strip().splitlines()[0]}")
    return json.loads(answer.stdout)


def from_diff(text: str, now: Mapping[str, float]) -> pd.DataFrame:
    """The comparison in what ``dvc metrics diff --json`` prints, without runs that are new.

    DVC lists only what changed (all, with ``--all``): every other AP of ``now`` is its own reference.
    """
    try:
        diffs = [diff for path, diff in json.loads(text).items() if Path(path).name == "metrics.json"]
        changes = {key[: -len(".AP")]: diff[key] for diff in diffs for key in diff if key.endswith(".AP")}
        old = {run: change["old"] for run, change in changes.items() if change["old"] is not None}
        new = {run: change["new"] for run, change in changes.items() if change["new"] is not None}
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ReportError("the input is not what 'dvc metrics diff --json' prints") from None
    same = {run: ap for run, ap in now.items() if run not in changes}
    return compare(same | new, same | old)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = command_parser("verdict").parse_args(argv)
    metrics, expected = arguments.results / "metrics.json", arguments.results / "expected.json"
    try:
        tolerance = arguments.tolerance
        if tolerance is None:
            tolerance = read_json(expected).get("tolerance_ap", TOLERANCE) if expected.exists() else TOLERANCE
        if arguments.accept:
            reference = accepted(arguments.results, tolerance)
            expected.write_text(json.dumps(reference, indent=2) + "\n", encoding="utf-8")
            print(f"{expected} written; `dvc repro --force --single-item report` shows it on the page")
            return 0
        if arguments.from_diff:
            # 0 is stdin
            with open(0 if arguments.from_diff == "-" else arguments.from_diff, encoding="utf-8") as file:
                table = from_diff(file.read(), ap_of(read_json(metrics)) if metrics.exists() else {})
        else:
            reference = read_json(arguments.against) if arguments.against else committed(metrics)
            table = compare(ap_of(read_json(metrics)), ap_of(reference))
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    passed, sentence = judge(table, tolerance)
    print(cells(table).to_string(index=False))
    print(sentence)
    print(f"reproduced: {'yes' if passed else 'no'} (tolerance ±{tolerance:g} AP)")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
