"""Maps drawn where their positions are: pixels by a plain loop, panels by what they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ipywidgets import IntSlider
from matplotlib.figure import Figure
from support.steps import IMAGE, SIZES, STRIDES, grid

from benchmark.figures import masks as plots_masks
from benchmark.probe import views
from pgd.dense import Grid


@pytest.fixture(params=[0.0, 4.0], ids=["cells", "corners"])
def scene(request) -> views.Scene:
    """Two levels; positions in the middle of their cells, or at corners as mmdet's anchors have them."""
    positions, g = grid(1), torch.Generator().manual_seed(0)
    shift = request.param / 8 * positions.strides[:, None]
    positions = Grid(positions.centers - shift, positions.strides, SIZES, positions.valid, positions.priors)
    count = len(positions.centers)
    corner = torch.rand(count, 2, generator=g) * 30
    return views.Scene(
        picture=torch.randint(0, 256, (*IMAGE, 3), generator=g, dtype=torch.uint8).numpy(),
        grid=positions,
        scores=torch.rand(count, 3, generator=g),
        boxes=torch.cat((corner, corner + 20), dim=1),
        gt_boxes=torch.tensor([[4.0, 4.0, 44.0, 40.0], [30.0, 20.0, 60.0, 46.0]]),
        gt_labels=torch.tensor([0, 2]),
        ignored=torch.zeros(0, 4),
    )


@pytest.mark.parametrize("levels", [None, (1,)])
def test_pixels_get_the_largest_of_their_cells(scene, levels):
    values = torch.rand(len(scene.grid.centers), generator=torch.Generator().manual_seed(1))
    expected = np.zeros(IMAGE)
    for (x, y), stride, value in zip(scene.grid.centers.tolist(), scene.grid.strides.tolist(), values, strict=True):
        if levels and stride != STRIDES[1]:
            continue
        for row in range(IMAGE[0]):
            for column in range(IMAGE[1]):
                if abs(row + 0.5 - y) < stride / 2 and abs(column + 0.5 - x) < stride / 2:
                    expected[row, column] = max(expected[row, column], float(value))
    assert np.allclose(plots_masks.on_pixels(scene, values, levels), expected, atol=1e-6)


def test_cells_lie_around_their_positions(scene):
    for level, part in enumerate(scene.grid.levels):
        left, right, bottom, top = plots_masks.cell_extent(scene, level)
        x, y = scene.grid.centers[part.start].tolist()
        assert (left + right) / 2 - x == pytest.approx((part.width - 1) * STRIDES[level] / 2)
        assert (top + bottom) / 2 - y == pytest.approx((part.height - 1) * STRIDES[level] / 2)


def test_share_by_level(scene):
    weights = torch.zeros(len(scene.grid.centers))
    assert plots_masks.share_by_level(scene, weights).tolist() == [0, 0]
    weights[0], weights[-1] = 0.25, 0.75
    assert plots_masks.share_by_level(scene, weights).tolist() == [0.25, 0.75]


def shown(panel) -> np.ndarray:
    """The map that lies over the picture of a panel."""
    return panel.images[1].get_array().filled(0)


def test_levels_show_quality_rings_weights_and_background(scene):
    maps, background = views.maps_of(scene, 0.8, 3), views.background_of(scene)
    figure = plots_masks.by_level(scene, {"cls, ξ = 0.8": maps, "reg, ξ = 0.6": maps}, background)
    panels = np.array(figure.axes[:10]).reshape(5, 2)
    for row, flat in zip(panels, (maps.quality, maps.weights) * 2 + (background,), strict=True):
        for panel, cells in zip(row, scene.grid.split(flat[None]), strict=True):
            assert np.allclose(shown(panel), cells[0].numpy())
    rings = np.concatenate([panel.collections[0].get_offsets() for panel in panels[0]])
    assert sorted(map(tuple, rings)) == sorted(map(tuple, scene.grid.centers[maps.top > 0].tolist()))
    assert [panel.get_title() for panel in panels[0]] == ["stride 8", "stride 16"]
    assert not panels[1, 0].collections
    assert len(panels[0, 0].patches) == len(scene.gt_boxes)


def test_all_masks_stand_side_by_side(scene):
    masks = views.all_masks(scene, 0.8, 3)
    figure = plots_masks.side_by_side(scene, masks)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == ["image", *masks]
    for name, weights in masks.items():
        assert np.allclose(shown(panels[name]), plots_masks.on_pixels(scene, weights))
    bars = next(axes for axes in figure.axes if axes.get_xlabel().startswith("share"))
    widths = np.array([patch.get_width() for patch in bars.patches]).reshape(len(masks), len(STRIDES))
    assert np.allclose(widths.sum(axis=1), 100)
    assert bars.texts[0].get_text().startswith(f"{int((masks['box'] > 0).sum())} positions, mean weight 1.00")


def test_transposed_boxes_stand_in_the_swapped_column_alone(scene):
    figure = plots_masks.released(scene, *views.versions(scene, 0.8, 3), views.VERSIONS[-1])
    panels = np.array(figure.axes[:6]).reshape(2, 3)
    assert [len(panel.patches) for panel in panels[0]] == [2, 2, 4]
    turned = [patch.get_bbox().extents.tolist() for patch in panels[0, 2].patches[2:]]
    assert turned == [[4, 4, 40, 44], [20, 30, 46, 60]]
    assert panels[0, 2].get_title().startswith("released, axes swapped\n")


@pytest.mark.slow
def test_without_objects_everything_is_background(scene):
    empty = replace(scene, gt_boxes=torch.zeros(0, 4), gt_labels=torch.zeros(0, dtype=torch.long))
    maps = views.maps_of(empty, 0.8, 3)
    assert not any(flat.any() for flat in maps)
    assert views.background_of(empty).all()
    plots_masks.by_level(empty, {"cls": maps}, views.background_of(empty)).draw_without_rendering()
    plots_masks.side_by_side(empty, views.all_masks(empty, 0.8, 3)).draw_without_rendering()


def test_the_picture_follows_the_controls():
    drawn = []

    def draw(image: int, k: int) -> Figure:
        drawn.append((image, k))
        figure = Figure(figsize=(1, 1))
        figure.text(0.5, 0.5, f"{image} {k}")
        return figure

    image, k = IntSlider(value=0, max=5), IntSlider(value=8, max=60)
    box = plots_masks.explorer(draw, image=image, k=k)
    *controls, picture = box.children
    assert controls == [image, k]
    assert bytes(picture.value).startswith(b"\x89PNG")
    first = bytes(picture.value)
    k.value = 30
    assert drawn == [(0, 8), (0, 30)]
    assert bytes(picture.value) != first
