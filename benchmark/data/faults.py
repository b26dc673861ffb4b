"""What is wrong with a data set: collected by kind, then refused in one line or left out and counted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

#: no coordinate is as large, pixels
LIMIT = 1e9
Xywh = tuple[float, float, float, float]
#: how many culprits of a kind an error names
NAMED = 3
REMEDY = "mend the data or fetch it again"
SKIP = "or leave these out by broken: skip"


class DataError(RuntimeError):
    """Data is missing or broken; one line that names the file and the remedy."""


@contextmanager
def room_to_load(label: str) -> Iterator[None]:
    """Around what loads images by processes of their own: tells in one line that shared memory has no room for it.

    Raises:
        DataError: there is none, or too little.
    """
    try:
        yield
    except RuntimeError as error:
        # torch's words in both cases
        if "shared memory" not in str(error):
            raise
        raise DataError(
            f"{label}: the processes that load data have no room in shared memory (/dev/shm): give a container more "
            "(--shm-size=8g), or load without them (options train_dataloader.num_workers: 0 and "
            "train_dataloader.persistent_workers: false, and the same for val_dataloader)"
        ) from error


class Faults:
    """What is wrong with an annotation file and its images: places by kind of fault.

    Args:
        path: of the annotation file.
        remedies: what to do, by kind; :data:`REMEDY` for others.
    """

    def __init__(self, path: Path, remedies: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.remedies = remedies or {}
        self.found: dict[str, list[tuple[int | str, str]]] = {}

    def add(self, kind: str, place: int | str, what: str = "") -> None:
        """Note a fault; ``place`` is a line or names an entry."""
        self.found.setdefault(kind, []).append((f"line {place}" if isinstance(place, int) else place, what))

    def count(self, kind: str) -> int:
        return len(self.found.get(kind, ()))

    def counts(self, kinds: Collection[str] | None = None) -> dict[str, int]:
        """How many of each kind."""
        return {kind: len(places) for kind, places in self.found.items() if kinds is None or kind in kinds}

    def told(self, kinds: Collection[str]) -> str:
        """``2 broken lines (line 3: not JSON; line 7: not JSON), 1 duplicate IDs (line 9: 'a' stands in line 1)``."""
        parts = []
        for kind in (k for k in self.found if k in kinds):
            named = [f"{place}: {what}" if what else str(place) for place, what in self.found[kind][:NAMED]]
            more = ["..."] if self.count(kind) > NAMED else []
            parts.append(f"{self.count(kind)} {kind} ({'; '.join(named + more)})")
        return ", ".join(parts)

    def refuse(self, kinds: Collection[str], hint: str = "") -> None:
        """Raise :class:`DataError` where one of these was found: each kind's count, first culprits and remedy."""
        if kinds := [kind for kind in self.found if kind in kinds]:
            remedies = dict.fromkeys(self.remedies.get(kind, REMEDY) for kind in kinds)
            raise DataError(f"{self.path}: {self.told(kinds)}; {'; '.join(remedies)}{hint and f', {hint}'}")

    def settle(self, broken: str, expected: Collection[str] = (), hint: str = SKIP) -> None:
        """Refuse the file, or say what was left out of it.

        Args:
            broken: ``refuse`` or ``skip``.
            expected: kinds that are no reason to refuse.
            hint: what else can be done about the others.

        Raises:
            DataError: one line with the count of each kind of fault and its first culprits.
        """
        if broken == "refuse":
            self.refuse(set(self.found) - set(expected), hint)
        if self.found:
            print(f"{self.path}: left out {self.told(self.found)}")


def xywh(value: object) -> Xywh | None:
    """Four numbers of a possible size (not NaN, not infinite), or None."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    fits = all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < LIMIT for n in value)
    return tuple(value) if fits else None
