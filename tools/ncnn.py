"""Read a detector that is stored for ncnn: a graph of layers as text (``.param``) and their weights (``.bin``).

As far as convolutional detectors need it. Sources: ncnn's "param and model file structure" (its wiki) and the layers'
``load_model``. A layer's weights follow those of the layer before it, without names or lengths, so a layer of a kind
that is not known here would shift all that come later: it is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.data.faults import DataError

MAGIC = "7767517"
#: how weights begin that are stored in half precision; zero: float32
HALF = 0x01306B47
#: by the kind of layer, the numbers of the settings that hold outputs, bias and the count of weights
WEIGHED = {"Convolution": (0, 5, 6), "ConvolutionDepthWise": (0, 5, 6), "InnerProduct": (0, 1, 2)}
CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
PLAIN = {
    *("BinaryOp", "Concat", "Crop", "Input", "Interp", "Permute", "Pooling", "Reshape", "ShuffleChannel"),
    *("Sigmoid", "Slice", "Softmax", "Split"),
}


@dataclass(frozen=True)
class Layer:
    """A node of the graph: what it reads and makes, by name, and its settings by number."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[int, str]

    def number(self, key: int, default: int = 0) -> int:
        return int(self.settings.get(key, default))


@dataclass(frozen=True)
class Convolution:
    """Weights ``[outputs, inputs of a group, kernel, kernel]`` and biases ``[outputs]``, float32."""

    weight: np.ndarray
    bias: np.ndarray


def read_graph(text: str) -> list[Layer]:
    """The layers of a ``.param`` file, in its order.

    Raises:
        DataError: it is no such file, or has layers that are not known here.
    """
    lines = text.splitlines()
    if lines[:1] != [MAGIC]:
        raise DataError(f"no text of an ncnn graph: it begins with {''.join(lines[:1])[:20]!r} instead of {MAGIC}")
    layers = []
    for line in lines[2:]:
        kind, _, made, *rest = line.split()
        if kind not in PLAIN and kind not in WEIGHED:
            raise DataError(f"{kind}: a layer that is not known here")
        ends = int(made), int(made) + int(rest[0])
        names, settings = rest[1 : 1 + ends[1]], {}
        for part in rest[1 + ends[1] :]:
            key, value = part.split("=", 1)
            settings[int(key)] = value
        layers.append(Layer(kind, tuple(names[: ends[0]]), tuple(names[ends[0] :]), settings))
    return layers


def read_convolutions(layers: Sequence[Layer], data: bytes) -> dict[str, Convolution]:
    """The weights of a ``.bin`` file, by the name of what a convolution makes.

    Raises:
        DataError: it does not belong to these layers, or is stored in another way.
    """
    place, found = 0, {}

    def take(count: int, kind: type) -> np.ndarray:
        nonlocal place
        size = count * np.dtype(kind).itemsize
        if place + size > len(data):
            raise DataError(f"the weights end after {len(data)} bytes, before those of all layers")
        values = np.frombuffer(data, kind, count, place)
        # pieces begin at multiples of four bytes
        place += -(-size // 4) * 4
        return values.astype(np.float32) if np.issubdtype(kind, np.floating) else values

    for layer in layers:
        if layer.kind not in WEIGHED:
            continue
        outputs, biased, count = (layer.number(key) for key in WEIGHED[layer.kind])
        flag = int(take(1, np.uint32)[0])
        if flag not in (0, HALF):
            raise DataError(f"weights that are stored in a way that is not known here (0x{flag:08x})")
        weight = take(count, np.float16 if flag else np.float32)
        bias = take(outputs, np.float32) if biased else np.zeros(outputs, np.float32)
        if layer.kind in CONVOLUTIONS:
            width = layer.number(1)
            shape = (outputs, -1, layer.number(11, width), width)
            found[layer.outputs[0]] = Convolution(weight.reshape(shape), bias)
    if place != len(data):
        raise DataError(f"{len(data) - place} of {len(data)} bytes of the weights belong to none of the layers")
    return found


def in_order_of_need(layers: Sequence[Layer]) -> Iterator[Layer]:
    """The layers as their outputs need them: each behind all that it reads, which come in the order of its inputs."""
    makers = {name: layer for layer in layers for name in layer.outputs}
    read = {name for layer in layers for name in layer.inputs}
    seen: set[str] = set()

    def behind(name: str) -> Iterator[Layer]:
        layer = makers[name]
        if layer.outputs[0] not in seen:
            seen.add(layer.outputs[0])
            for needed in layer.inputs:
                yield from behind(needed)
            yield layer

    for layer in layers:
        for name in layer.outputs:
            if name not in read:
                yield from behind(name)
