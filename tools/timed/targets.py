"""What a suite that is fast would have, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.evidence.markdown import markdown_table
from tools.timed.side import ALL_WORTH

#: a step with a live teacher, by the student's step and the teacher's pass together
LIVE = {"pgd": 1.05, "fgd": 1.15, "crosskd": 1.15}
#: with a stored teacher, by the student's step
STORED = {"pgd": 1.10}
LITERAL, LOADER, EVALUATION, START_MS = 1.5, 0.05, 50.0, 5000.0
#: a straight line gives 1, sorting up to 1.1; the rest can be noise
EXPONENT = 1.2
#: parts of growth
PARTS = {"maps": "PGD's maps", "step": "PGD's step"}
#: what this measurement cannot say
ELSEWHERE = "make repro, smoke and test (time them in an empty clone), AP of the literal student (a training)"


def row(what: str, spread: Mapping[str, float], most: float | None = None, least: float | None = None) -> dict:
    """A line of the table: met is what the median says."""
    median = spread["median"]
    return {
        "what": what,
        "measured": median,
        "lower": spread.get("lower", median),
        "upper": spread.get("upper", median),
        "target": f"at most {most:g}" if most is not None else f"at least {least:g}",
        "met": bool(median <= most if most is not None else median >= least),
    }


def of_steps(detector: str, found: Mapping[str, Any]) -> Iterator[dict]:
    """Of a detector's training steps."""
    name = detector.upper()
    for method, most in LIVE.items():
        yield row(f"{name}: {method} step, live teacher / (student step + teacher pass)", found["live"][method], most)
    for method, most in STORED.items():
        yield row(f"{name}: {method} step, stored teacher / student step", found["stored / student"][method], most)
    yield row(f"{name}: literal student step / ours", found["student, literal / student"], least=LITERAL)


def of_growth(found: Mapping[str, Any]) -> Iterator[dict]:
    """Powers of the number of boxes: fitted to times; of memory, which has no noise and many bends, the steepest."""
    for part, name in PARTS.items():
        time, memory = found["objects"][part]["growth"], found["objects"][part]["growth of memory"]
        # what hardly grows has no exponent
        power = 0.0 if time["exponent"] is None else time["exponent"]
        yield row(f"{name}: time grows by which power of boxes", {**time.get("turns", {}), "median": power}, EXPONENT)
        yield row(f"{name}: memory grows by which power of boxes", {"median": memory["steepest"]}, EXPONENT)


def targets(content: Mapping[str, Any]) -> list[dict]:
    """All lines, from what was measured."""
    rows = [line for detector, found in content["steps"].items() for line in of_steps(detector, found)]
    if ALL_WORTH in (side := content["side by side"]):
        what = f"{side['detector'].upper()}: two students, literal with all cores in turn / ours side by side"
        rows.append(row(what, side[ALL_WORTH], least=LITERAL))
    loader, evaluation = content["loader"]["share of the student's step"], content["evaluation"]
    rows.append(row("loader / student step, images known", loader["here"], LOADER))
    steps = content["loader"]["steps of a training"]
    rows.append(row(f"loader / student step, over a training of {steps} steps", loader["over a training"], LOADER))
    rows.append(row("evaluation: pycocotools / ours", evaluation["pycocotools / here"], least=EVALUATION))
    difference = {"median": evaluation["largest difference"]}
    rows.append(row("evaluation: largest difference to pycocotools", difference, 0.0))
    seconds = content["start"]["ms"]["training, first step done"]
    rows.append(row("start-up of a training up to its first step, ms", seconds, START_MS))
    return rows + list(of_growth(content["growth"]))


HEAD = ("", "measured", "quartiles", "target", "met")


def cells(line: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    quartiles = f"{line['lower']:.4g} to {line['upper']:.4g}"
    return line["what"], f"{line['measured']:.4g}", quartiles, line["target"], "yes" if line["met"] else "no"


def printed(rows: list[dict]) -> str:
    """The table as text."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, f"not measured here: {ELSEWHERE}"])


def markdown(content: Mapping[str, Any]) -> str:
    """The table for readers, and what it was measured on."""
    on = content["machine"]
    where = f"{on['cpu']}, {on['cores']} cores, torch {on['torch']}, commit {on['git_revision']}"
    table = markdown_table(HEAD, map(cells, content["targets"]), ("", "target", "met"))
    return f"{table}\n{where}; medians of up to {content['turns']} turns. Not measured here: {ELSEWHERE}.\n"
