"""Tables in Markdown. Imports nothing, so that whoever has rows of text can use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[str]], words: Iterable[str]) -> str:
    """A table of text cells; the columns that ``words`` names to the left, those of numbers to the right."""
    left = set(words)
    lines = [head, ["---" if name in left else "---:" for name in head], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
