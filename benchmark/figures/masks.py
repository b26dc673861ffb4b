"""Figures of a teacher's maps over an image: by level, the masks side by side, and as the release makes them.

Each function takes a :class:`benchmark.probe.views.Scene` and maps ``[P]`` over its positions and returns a Figure.
Colour runs from nothing (0) to dark (1), so that the figures can be read in grey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO

import matplotlib as mpl
import numpy as np
import seaborn as sns
from ipywidgets import Image, Layout, ValueWidget, VBox
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from benchmark.figures.looks import style
from benchmark.probe.views import Maps, Scene

#: of quality, weights and background
QUALITY, WEIGHTS, BACKGROUND = "mako_r", "rocket_r", "#7f8fa6"
RING, BOX, SWAPPED = "#d55e00", "#1a1a1a", "#0072b2"
#: how much of a picture's contrast stays under the maps
FADE = 0.35
WIDTH = 8.8
LINE = 0.32


def colours(name: str) -> Colormap:
    """A colour map by seaborn's name, or of a single colour; what is masked stays transparent."""
    return ListedColormap([name]) if name.startswith("#") else sns.color_palette(name, as_cmap=True)


def faded(picture: np.ndarray) -> np.ndarray:
    """A picture ``[H, W, 3]`` in pale grey, 0..1, to draw on."""
    return 1 - FADE * (1 - picture.astype(float).mean(axis=2) / 255)


def level_cells(scene: Scene, flat: Tensor) -> list[np.ndarray]:
    """A map ``[P]`` as ``[H, W]`` of each level."""
    return [level[0].double().numpy() for level in scene.grid.split(flat[None])]


def cell_extent(scene: Scene, level: int) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of a level's cells in pixels: a stride wide, around their positions."""
    start, height, width = scene.grid.levels[level]
    stride = float(scene.grid.strides[start])
    left, top = (scene.grid.centers[start].double().numpy() - stride / 2).tolist()
    return left, left + width * stride, top + height * stride, top


def on_pixels(scene: Scene, flat: Tensor, levels: Iterable[int] | None = None) -> np.ndarray:
    """A map ``[P]`` on the picture ``[H, W]``: at each pixel the largest value of the cells there, of any level."""
    height, width = scene.picture.shape[:2]
    total = np.zeros((height, width))
    cells = level_cells(scene, flat)
    for level in range(len(cells)) if levels is None else levels:
        left, right, _, top = cell_extent(scene, level)
        stride = (right - left) / cells[level].shape[1]
        rows = np.floor((np.arange(height) + 0.5 - top) / stride).astype(int)
        columns = np.floor((np.arange(width) + 0.5 - left) / stride).astype(int)
        # pixels right of and below the last cells have none
        padded = np.pad(cells[level], (0, 1))
        rows, columns = (np.minimum(i, n) for i, n in zip((rows, columns), cells[level].shape, strict=True))
        total = np.maximum(total, padded[rows[:, None], columns])
    return total


def share_by_level(scene: Scene, flat: Tensor) -> np.ndarray:
    """Shares of a map's sum that stand on each level; zeros where there is nothing."""
    sums = np.array([cells.sum() for cells in level_cells(scene, flat)])
    return sums / sums.sum() if sums.sum() > 0 else sums


def draw_scene(axes: Axes, scene: Scene, colour: bool = False, **line) -> None:
    """The picture (pale, or in its colours) and its boxes, without ticks."""
    height, width = scene.picture.shape[:2]
    shown = scene.picture if colour else faded(scene.picture)
    axes.imshow(shown, extent=(0, width, height, 0), cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    draw_boxes(axes, scene.gt_boxes.numpy(), **{"edgecolor": BOX, "linewidth": 0.9} | line)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    sns.despine(ax=axes, left=True, bottom=True)


def draw_boxes(axes: Axes, boxes: np.ndarray, **line) -> None:
    """Outlines of boxes ``[G, 4]``."""
    for x1, y1, x2, y2 in boxes:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, facecolor="none", zorder=3, **line))


def draw_map(axes: Axes, values: np.ndarray, extent: Sequence[float], name: str) -> None:
    """Values 0..1 over the picture; zeros let it through."""
    masked = np.ma.masked_less_equal(values, 0)
    axes.imshow(masked, extent=tuple(extent), cmap=colours(name), vmin=0, vmax=1, interpolation="nearest", alpha=0.9)


def colour_bar(figure: Figure, axes: Sequence[Axes], name: str, label: str) -> None:
    """What the colours of some panels mean."""
    mappable = mpl.cm.ScalarMappable(Normalize(0, 1), colours(name))
    bar = figure.colorbar(mappable, ax=list(axes), fraction=0.03, pad=0.015, aspect=14, ticks=(0, 0.5, 1))
    bar.set_label(label, fontsize=10)
    bar.outline.set_visible(False)


def panel_height(scene: Scene, columns: int) -> float:
    """Inches that a row of ``columns`` pictures is high."""
    height, width = scene.picture.shape[:2]
    return (WIDTH - 1.25) / columns * height / width


def by_level(scene: Scene, branches: Mapping[str, Maps], background: Tensor) -> Figure:
    """Quality with rings on the top-K, then the weights, of each branch; last the background; a column a level.

    ``branches`` are named as their rows shall be, such as ``cls, xi = 0.8``.
    """
    style()
    levels, rows = scene.grid.num_levels, 2 * len(branches) + 1
    figure = Figure(figsize=(WIDTH, rows * (panel_height(scene, levels) + 0.06) + 0.75), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    panels = figure.subplots(rows, levels, squeeze=False)
    names = [f"{kind}\n({branch})" for branch in branches for kind in ("quality", "weights")]
    maps = [flat for shown in branches.values() for flat in (shown.quality, shown.weights)]
    looks = [QUALITY, WEIGHTS] * len(branches)
    for axes, name, flat, look in zip(
        panels, [*names, "background"], [*maps, background], [*looks, BACKGROUND], strict=True
    ):
        for level, (panel, cells) in enumerate(zip(axes, level_cells(scene, flat), strict=True)):
            draw_scene(panel, scene)
            draw_map(panel, cells, cell_extent(scene, level), look)
        axes[0].set_ylabel(name)
    for axes, shown in zip(panels[::2], branches.values(), strict=False):
        ring_top(axes, scene, shown.top)
    for panel, level in zip(panels[0], scene.grid.levels, strict=True):
        panel.set_title(f"stride {float(scene.grid.strides[level.start]):g}")
    for i, (look, label) in enumerate(zip(looks, names, strict=True)):
        colour_bar(figure, panels[i], look, label.split("\n")[0])
    handles = [
        Line2D([], [], color=RING, marker="o", markerfacecolor="none", linestyle="", label="among a box's top-K"),
        Patch(facecolor="none", edgecolor=BOX, label="object"),
        Patch(facecolor=BACKGROUND, label="background position"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def ring_top(axes: Sequence[Axes], scene: Scene, top: Tensor) -> None:
    """Rings on the positions of the top-K, on the panel of their level."""
    chosen = top.numpy() > 0
    for panel, level in zip(axes, scene.grid.levels, strict=True):
        positions = slice(level.start, level.start + level.height * level.width)
        points = scene.grid.centers[positions].numpy()[chosen[positions]]
        panel.scatter(*points.T, s=16, facecolor="none", edgecolor=RING, linewidth=1.1, zorder=4)


def side_by_side(scene: Scene, masks: Mapping[str, Tensor]) -> Figure:
    """The picture and every mask on it (the largest weight of any level), and on which levels each has its weight."""
    style()
    columns = 4
    rows = -(-(len(masks) + 1) // columns)
    heights = [rows * (panel_height(scene, columns) + 0.3), LINE * len(masks) + 0.9]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    panels = upper.subplots(rows, columns, squeeze=False)
    flat = panels.flatten()
    for panel in flat[len(masks) + 1 :]:
        panel.set_axis_off()
    draw_scene(flat[0], scene, colour=True, edgecolor="white", linewidth=1.2)
    flat[0].set_title("image")
    height, width = scene.picture.shape[:2]
    for panel, (name, weights) in zip(flat[1:], masks.items(), strict=False):
        draw_scene(panel, scene)
        draw_map(panel, on_pixels(scene, weights), (0, width, height, 0), WEIGHTS)
        panel.set_title(name)
    colour_bar(upper, flat, WEIGHTS, "weight")
    draw_levels(lower.subplots(), scene, masks)
    return figure


def draw_levels(axes: Axes, scene: Scene, masks: Mapping[str, Tensor]) -> None:
    """A bar a mask: shares of its weight by level; beside it how many positions it has, and their mean weight."""
    strides = [float(scene.grid.strides[level.start]) for level in scene.grid.levels]
    tints = sns.color_palette("mako_r", len(strides))
    for y, weights in enumerate(masks.values()):
        ends = np.concatenate(([0.0], np.cumsum(share_by_level(scene, weights)))) * 100
        axes.barh(y, np.diff(ends), left=ends[:-1], color=tints, height=0.7)
        used = weights[weights > 0]
        mean = f", mean weight {float(used.mean()):.2f}" if len(used) else ""
        axes.text(101.5, y, f"{len(used)} positions{mean}", va="center", fontsize=10)
    axes.set(ylim=(len(masks) - 0.5, -0.5), xlim=(0, 100), xlabel="share of the mask's weight (%)")
    axes.set_yticks(range(len(masks)), list(masks))
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)
    handles = [Patch(facecolor=tint, label=f"{stride:g}") for tint, stride in zip(tints, strides, strict=True)]
    axes.figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), title="stride of the level")


def released(scene: Scene, weights: Mapping[str, Tensor], backgrounds: Mapping[str, Tensor], swapped: str) -> Figure:
    """Weights and background as they are meant and as the released code makes them; a column a version.

    ``swapped`` is the version whose in-box test is transposed: there, the dashed boxes are where the test happens.
    Weights are the largest of any level; the background is that of the finest level.
    """
    style()
    columns = len(weights)
    figure = Figure(figsize=(WIDTH, 2 * panel_height(scene, columns) + 1.0), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    height, width = scene.picture.shape[:2]
    for upper, lower, name in zip(*panels, weights, strict=True):
        count = int((weights[name] > 0).sum())
        draw_scene(upper, scene)
        draw_map(upper, on_pixels(scene, weights[name]), (0, width, height, 0), WEIGHTS)
        upper.set_title(f"{name}\n{count} position{'s' if count != 1 else ''}")
        draw_scene(lower, scene)
        draw_map(lower, level_cells(scene, backgrounds[name])[0], cell_extent(scene, 0), BACKGROUND)
        for panel in (upper, lower) if name == swapped else ():
            turned = scene.gt_boxes.numpy()[:, [1, 0, 3, 2]]
            draw_boxes(panel, turned, edgecolor=SWAPPED, linewidth=1.4, linestyle=(0, (3, 1.5)))
    panels[0, 0].set_ylabel("weights")
    panels[1, 0].set_ylabel("background\n(finest level)")
    colour_bar(figure, panels[0], WEIGHTS, "weight")
    handles = [
        Patch(facecolor="none", edgecolor=BOX, label="object"),
        Patch(facecolor="none", edgecolor=SWAPPED, linestyle="--", label="where the transposed test looks for it"),
        Patch(facecolor=BACKGROUND, label="background position"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def explorer(draw: Callable[..., Figure], **controls: ValueWidget) -> VBox:
    """Controls and below them the figure that ``draw`` makes of their values, by name; drawn anew when one changes.

    An image where `ipywidgets.interact` has an output area: a notebook that is run without a front end answers such
    areas on the channel that it also waits on, and may then wait for ever.
    """
    image = Image(format="png", layout=Layout(max_width="100%"))

    def update(_: object = None) -> None:
        content = BytesIO()
        draw(**{name: control.value for name, control in controls.items()}).savefig(content, format="png")
        image.value = content.getvalue()

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return VBox([*controls.values(), image])
