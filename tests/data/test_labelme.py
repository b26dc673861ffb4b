"""labelme's JSON files become a COCO tree; what is odd in them is named."""

from __future__ import annotations

import json
import sys

import pytest
from support.foreign_sets import HEIGHT, WIDTH, Plain, boxes

from benchmark.data.faults import DataError
from benchmark.data.labelme import box_of

SIZE = {"imageWidth": WIDTH, "imageHeight": HEIGHT}


def shape(label: str, points: list, kind: str = "rectangle") -> dict:
    return {"label": label, "points": points, "shape_type": kind}


@pytest.fixture
def labelled(tmp_path, monkeypatch) -> Plain:
    """Two images: a cat, and a dog."""
    monkeypatch.setattr(sys, "argv", [])
    world = Plain(tmp_path, "labelme")
    for path in world.xml.glob("*.xml"):
        path.unlink()
    write(world, "rest1", [shape("cat", [[24, 30], [4, 6]])])
    write(world, "rest2", [shape("dog", [[4, 6], [24, 30]])])
    return world


def write(world: Plain, name: str, shapes: list, **more) -> None:
    content = {"imagePath": f"..\\img\\{name}.png", "shapes": shapes, **SIZE, **more}
    (world.xml / f"{name}.json").write_text(json.dumps(content))


def test_labelme(labelled):
    content = labelled.convert()
    assert [category["name"] for category in content["train"]["categories"]] == ["cat", "dog"]
    assert boxes(content["train"], "rest1") == [[4, 6, 20, 24]], "corners in any order"
    assert boxes(content["val"], "rest2") == [[4, 6, 20, 24]]
    assert labelled.oddities() == []


@pytest.mark.parametrize(
    ("points", "kind", "expected"),
    [
        ([[10, 20], [4, 6]], "rectangle", (4, 6, 10, 20)),
        ([[4, 6], [10, 8], [5, 20]], "polygon", (4, 6, 10, 20)),
        ([[1, 2], [9, 5]], "line", (1, 2, 9, 5)),
        ([[10, 10], [13, 14]], "circle", (5, 5, 15, 15)),
        ([[4, 6], [10, 20]], "mask", (4, 6, 10, 20)),
        ([[4, 6]], "point", None),
        ([["a", 6], [1, 2]], "rectangle", None),
        ([[1, 2, 3]], "polygon", None),
        ([], "polygon", None),
        (None, "polygon", None),
        ([[1, 2], [float("inf"), 4]], "rectangle", None),
    ],
)
def test_boxes_of_shapes(points, kind, expected):
    assert box_of(shape("cat", points, kind)) == expected


def test_odd_shapes_and_files(labelled):
    write(labelled, "rest1", [shape("cat", [[4, 6], [24, 30]]), shape("cat", [[4, 6]], "point")], imagePath="b.png")
    write(labelled, "ghost", [shape("cat", [[4, 6], [24, 30]])])
    labelled.convert()
    assert sorted(labelled.oddities()) == [
        "annotations that name another file: rest1.json: b.png, but rest1.png is there",
        "boxes that are not four numbers: rest1.json: shape 2: cat",
        "missing images: ghost.json: ghost.png",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "rest1.json: no JSON"),
        ("[]", "rest1.json: has no list of shapes; is it a file of labelme?"),
        ('{"shapes": 3}', "rest1.json: has no list of shapes"),
        ('{"shapes": ["cat"]}', "rest1.json: shape 1 is no entry with a label and points"),
    ],
)
def test_bad_files(labelled, text, told):
    (labelled.xml / "rest1.json").write_text(text)
    with pytest.raises(DataError) as error:
        labelled.convert()
    assert told in str(error.value)


def test_a_folder_without_any(labelled):
    for path in labelled.xml.glob("*.json"):
        path.unlink()
    with pytest.raises(DataError, match="no JSON file in it"):
        labelled.convert()
