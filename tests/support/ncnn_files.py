"""NanoDets as files for ncnn, written name by name: what :mod:`tools.nanodet` has to find out from the graph alone."""

from __future__ import annotations

import numpy as np
from torch import nn


class Writer:
    """Collects layers and weights; a method returns the name of what its layer makes.

    ``half`` stores weights in half precision. ``swapped`` writes a unit's second branch before its first, as some
    converters do: order in the file says nothing.
    """

    def __init__(self, detector: nn.Module, half: bool, swapped: bool) -> None:
        self.modules, self.half, self.swapped = dict(detector.named_modules()), half, swapped
        self.lines: list[str] = []
        self.data = b""

    def layer(self, kind: str, inputs: list[str], made: int = 1, settings: str = "") -> list[str]:
        outputs = [f"b{len(self.lines)}_{i}" for i in range(made)]
        names = " ".join([*inputs, *outputs])
        self.lines.append(f"{kind:24} l{len(self.lines)} {len(inputs)} {made} {names} {settings}".rstrip())
        return outputs

    def weigh(self, weight: np.ndarray, bias: np.ndarray) -> None:
        flag = 0x01306B47 if self.half else 0
        piece = weight.astype(np.float16 if self.half else np.float32).tobytes()
        self.data += np.uint32(flag).tobytes() + piece + b"\0" * (-len(piece) % 4) + bias.astype(np.float32).tobytes()

    def conv(self, x: str, name: str, also: str | None = None) -> str:
        """The convolution of this name, with the rows of another one behind its own."""
        parts = [self.modules[n] for n in (name, also) if n]
        weight, bias = (np.concatenate([getattr(p, k).detach().numpy() for p in parts]) for k in ("weight", "bias"))
        own = parts[0]
        kind = "Convolution" if own.groups == 1 else "ConvolutionDepthWise"
        settings = f"0={len(bias)} 1={weight.shape[-1]} 3={own.stride[0]} 5=1 6={weight.size} 7={own.groups}"
        (out,) = self.layer(kind, [x], 1, settings)
        self.weigh(weight, bias)
        return out

    def chain(self, x: str, *names: str) -> str:
        for name in names:
            x = self.conv(x, name)
        return x

    def one(self, kind: str, *inputs: str) -> str:
        return self.layer(kind, list(inputs))[0]

    def two(self, x: str) -> list[str]:
        return self.layer("Split", [x], 2)

    @property
    def graph(self) -> str:
        return "\n".join(["7767517", f"{len(self.lines)} {9 * len(self.lines)}", *self.lines]) + "\n"


def backbone(w: Writer) -> list[str]:
    x = w.one("Pooling", w.conv(w.layer("Input", [])[0], "backbone.stem.0"))
    levels = []
    for stage, units in enumerate((4, 8, 4)):
        for unit in range(units):
            base = f"backbone.stages.{stage}.{unit}"
            first, second = w.two(x)
            chains = {"b1": [f"{base}.b1.{i}.0" for i in range(2)] if unit == 0 else [], "b2": []}
            chains["b2"] = [f"{base}.b2.{i}.0" for i in range(3)]
            starts = {"b1": first, "b2": second}
            if unit:
                starts = {"b1": w.one("Crop", first), "b2": w.one("Crop", second)}
            order = ("b2", "b1") if w.swapped else ("b1", "b2")
            ends = {branch: w.chain(starts[branch], *chains[branch]) for branch in order}
            x = w.one("ShuffleChannel", w.one("Concat", ends["b1"], ends["b2"]))
        levels.append(x)
    return levels


def pan(w: Writer, levels: list[str]) -> list[str]:
    levels = [w.conv(x, f"neck.lateral.{i}.0") for i, x in enumerate(levels)]
    for i in (2, 1):
        levels[i - 1] = w.one("BinaryOp", levels[i - 1], w.one("Interp", levels[i]))
    for i in (1, 2):
        levels[i] = w.one("BinaryOp", levels[i], w.one("Interp", levels[i - 1]))
    return levels


def ghost(w: Writer, name: str, x: str) -> str:
    around = w.chain(x, f"{name}.sc.0.0", f"{name}.sc.1.0") if w.swapped else None
    first = w.conv(x, f"{name}.p1.0")
    first = w.one("Concat", first, w.conv(first, f"{name}.c1.0"))
    second = w.conv(first, f"{name}.p2.0")
    second = w.one("Concat", second, w.conv(second, f"{name}.c2.0"))
    return w.one("BinaryOp", second, around or w.chain(x, f"{name}.sc.0.0", f"{name}.sc.1.0"))


def ghost_pan(w: Writer, levels: list[str]) -> list[str]:
    # a converter may write the coarse ones first: order in the file says nothing
    reduced = {i: w.conv(levels[i], f"neck.reduce.{i}.0") for i in (2, 1, 0)}
    inner = {2: reduced[2]}
    for block, i in enumerate((1, 0)):
        inner[i] = ghost(w, f"neck.td.{block}", w.one("Concat", w.one("Interp", inner[i + 1]), reduced[i]))
    outer = [inner[0]]
    for step in (0, 1):
        down = w.chain(outer[-1], f"neck.down.{step}.0.0", f"neck.down.{step}.1.0")
        outer.append(ghost(w, f"neck.bu.{step}", w.one("Concat", down, inner[step + 1])))
    ends = [w.chain(x, f"neck.{n}.0.0", f"neck.{n}.1.0") for n, x in (("ein", reduced[2]), ("eout", outer[-1]))]
    return [*outer, w.one("BinaryOp", *ends)]


def head(w: Writer, levels: list[str]) -> None:
    made = {}
    for level in reversed(range(len(levels))) if w.swapped else range(len(levels)):
        tower = [f"bbox_head.cls_convs.{n}.blocks.{level}.{i}.0" for n in range(2) for i in range(2)]
        x = w.chain(levels[level], *tower)
        made[level] = w.conv(x, f"bbox_head.gfl_cls.blocks.{level}", f"bbox_head.gfl_reg.blocks.{level}")
    if w.swapped:
        w.one("Concat", *(w.one("Reshape", made[level]) for level in range(len(levels))))
        return
    for level in range(len(levels)):
        classes, sides = w.layer("Slice", [made[level]], 2)
        w.one("Sigmoid", classes)
        # the mean of a distribution, as a layer with weights of its own
        w.layer("InnerProduct", [w.one("Softmax", sides)], 1, "0=1 2=8")
        w.weigh(np.arange(8.0), np.zeros(0))


def files(detector: nn.Module, half: bool, swapped: bool) -> tuple[str, bytes]:
    """A NanoDet as the graph and the weights of ncnn."""
    w = Writer(detector, half, swapped)
    levels = backbone(w)
    head(w, ghost_pan(w, levels) if hasattr(detector.neck, "td") else pan(w, levels))
    return w.graph, w.data
