"""A budget as words: the same cells for the terminal and for a Markdown file. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from benchmark.evidence.markdown import markdown_table

if TYPE_CHECKING:
    from benchmark.experiment.budget import Budget

COLUMNS = (
    "run",
    "M parameters",
    "GFLOP forward",
    "GFLOP a training image",
    "GB of memory",
    "M images",
    "k steps",
    "GPU hours",
    "GB of disk",
)


def _number(value: float | None, scale: float = 1.0, digits: int = 1) -> str:
    return "?" if value is None else f"{value / scale:,.{digits}f}"


def cells(found: Budget, price: float | None) -> list[list[str]]:
    """The table with its head: a row a training, then the sum; the last column, money, only with a price."""
    rows = [[*COLUMNS, *(["cost"] if price else [])]]
    for row in found.rows:
        line = [row.name, _number(row.work.parameters, 1e6), _number(row.work.forward, 1e9, 0)]
        line += [_number(row.per_image, 1e9, 0), _number(row.memory, 1e9), _number(row.images, 1e6, 3)]
        line += [_number(row.steps, 1e3), _number(row.gpu_hours, 1, 2), _number(row.disk, 1e9, 2)]
        cost = None if row.gpu_hours is None else row.gpu_hours * (price or 0)
        rows.append([*line, *([_number(cost, 1, 2)] if price else [])])
    whole = [f"all {len(found.rows)}", *[""] * 4, _number(sum(row.images or 0 for row in found.rows), 1e6, 3)]
    whole += [_number(sum(row.steps or 0 for row in found.rows), 1e3), _number(found.gpu_hours, 1, 2)]
    whole += [_number(sum(row.disk for row in found.rows), 1e9, 2)]
    rows.append([*whole, *([_number(found.gpu_hours * price, 1, 2)] if price else [])])
    return rows


def sentences(found: Budget, gpus: Sequence[int], throughput: float) -> list[str]:
    """What stands below the table."""
    shared = sorted({row.gpus for row in found.rows})
    counts = (
        "one GPU"
        if shared == [1]
        else f"{' or '.join(map(str, shared))} GPUs, as params.yaml says, and loses nothing by it"
    )
    told = [
        f"Assumed: one GPU does {throughput:g} training images a second of the first pair's student without a teacher; "
        f"a training takes {counts}. Memory is in single precision, at the least: losses and workspaces come on top."
    ]
    for count in gpus:
        told.append(
            f"{count} GPUs: {found.wall_hours(count):,.1f} hours ({found.wall_hours(count) / 24:,.1f} days), "
            f"{found.disk(count) / 1e9:,.1f} GB of disk ({found.data / 1e9:,.1f} GB of it data)."
        )
    if found.unknown:
        told.append(f"Sums and hours leave out {found.unknown} trainings, whose data are not there.")
    return told + [f"Missing: {what}." for what in found.missing] + ([] if found.missing else ["Nothing is missing."])


def show(found: Budget, gpus: Sequence[int], throughput: float, price: float | None) -> None:
    """Print table and sentences."""
    head, *rows = cells(found, price)
    table = Table(box=box.SIMPLE)
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row, end_section=row is rows[-2])
    console = Console()
    console.print(table)
    for line in sentences(found, gpus, throughput):
        console.print(line, highlight=False, soft_wrap=True)


def markdown(found: Budget, gpus: Sequence[int], throughput: float, price: float | None) -> str:
    """The same as a page's part."""
    head, *rows = cells(found, price)
    return (
        markdown_table(head, rows, head[:1])
        + "\n"
        + "\n".join(f"- {line}" for line in sentences(found, gpus, throughput))
        + "\n"
    )
