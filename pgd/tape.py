"""What passes through a detector while it trains or predicts, recorded for a method."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pgd.dense import Grid, View, reader_of
from pgd.methods.base import Method, TowerPlace


class Tape:
    """Records what passes through a detector: neck, tower features at a place, head outputs, targets.

    Forward hooks and one wrapped method, no change to the detector. Nothing is kept outside :meth:`recording`.
    """

    def __init__(self, detector: nn.Module, place: TowerPlace | None = Method.tower_place) -> None:
        self.reader = reader_of(detector.bbox_head)
        self._head = detector.bbox_head
        self._on = False
        self.clear()
        detector.neck.register_forward_hook(lambda m, i, out: self._keep("neck", out))
        detector.bbox_head.register_forward_hook(lambda m, i, out: self._keep("outputs", out))
        for branch, tower in enumerate(self.reader.towers if place is not None else ()):
            block = tower[place.block]
            if place.activated:
                block.register_forward_hook(lambda m, i, out, b=branch: self._add_level(b, out))
            else:
                last = block.norm if block.with_norm else block.conv
                last.register_forward_hook(lambda m, i, out, b=branch: self._add_level_and_copy(b, out))

    def clear(self) -> None:
        self.neck: Sequence[Tensor] | None = None
        self.outputs: Sequence | None = None
        self.targets: Sequence | None = None
        self.towers: tuple[list[Tensor], list[Tensor]] = ([], [])

    def _keep(self, name: str, value: Any) -> None:
        if self._on:
            setattr(self, name, value)

    def _add_level(self, branch: int, value: Tensor) -> None:
        if self._on:
            self.towers[branch].append(value)

    def _add_level_and_copy(self, branch: int, value: Tensor) -> Tensor | None:
        """Keep the features and hand a copy on: the activation behind works in place."""
        self._add_level(branch, value)
        return value.clone() if self._on else None

    @contextmanager
    def recording(self, targets: bool = False) -> Iterator[Tape]:
        """Record within the block; the record stays until the next one. ``targets``: the head's assignment too."""
        self.clear()
        self._on = True
        if targets:
            name = self.reader.assigning
            original = getattr(self._head, name)

            def assign(*args, **kwargs):
                self.targets = original(*args, **kwargs)
                return self.targets

            setattr(self._head, name, assign)
        try:
            yield self
        finally:
            self._on = False
            if targets:
                delattr(self._head, name)

    def view(self, grid: Grid, needs: Collection[str]) -> View:
        """What was recorded, as far as it is needed."""
        return View(
            self.reader,
            grid,
            neck=self.neck if "neck" in needs else None,
            towers=self.towers if "towers" in needs else None,
            outputs=self.outputs if "predictions" in needs else None,
        )
