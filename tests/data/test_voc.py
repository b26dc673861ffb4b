"""Pascal VOC: every oddity of boxes, images and files is seen, and nothing else is lost."""

from __future__ import annotations

import sys

import pytest
from PIL import Image
from support.coco_tree import write_image
from support.foreign_sets import HEIGHT, PLAIN, WIDTH, Voc, boxes, written

from benchmark.data.faults import DataError
from benchmark.experiment.cli import run_cli


@pytest.fixture
def voc(tmp_path, monkeypatch) -> Voc:
    monkeypatch.setattr(sys, "argv", [])
    return Voc(tmp_path)


def test_pixels_count_from_one(voc):
    """By VOC's count the whole image reaches from 1 to its width."""
    voc.add("a", [("cat", (1, 1, WIDTH, HEIGHT)), PLAIN])
    content = voc.convert()["train"]
    assert boxes(content, "a") == [[0, 0, WIDTH, HEIGHT], [4, 6, 20, 24]]
    assert [entry["area"] for entry in content["annotations"]][:2] == [WIDTH * HEIGHT, 20 * 24]
    assert voc.oddities() == []


def test_edges_count_from_zero(voc):
    voc.add("a", [("cat", (0, 0, WIDTH, HEIGHT)), PLAIN])
    assert boxes(voc.convert("--first-pixel", "0")["train"], "a") == [[0, 0, WIDTH, HEIGHT], [5, 7, 19, 23]]


def test_classes_by_name_or_as_given(voc):
    voc.add("a", [("dog", PLAIN[1]), ("ant", PLAIN[1])])
    assert [c["name"] for c in voc.convert()["val"]["categories"]] == ["ant", "cat", "dog"]
    voc.out = voc.root / "other"
    content = voc.convert("--classes", "dog", "ant", "cat")["train"]
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "dog"), (2, "ant"), (3, "cat")]
    assert [entry["category_id"] for entry in content["annotations"]] == [1, 2, 3]


OUT = [0, 6, 24, 24]
#: objects of an image beside a plain one; which fault is noted; the boxes that are left of them
ODD = {
    "no_area": ([("cat", (9, 9, 9, 20))], "boxes without area", []),
    "one_pixel": ([("cat", (9, 9, 9, 9))], "boxes without area", []),
    "swapped": ([("cat", (20, 9, 9, 20))], "boxes whose corners are swapped", []),
    "text": ([("cat", (9, "x", 20, 20))], "boxes that are not four numbers", []),
    "infinite": ([("cat", (9, 9, "inf", 20))], "boxes that are not four numbers", []),
    "nothing": ([("cat", (9, "", 20, 20))], "boxes that are not four numbers", []),
    "outside": ([("cat", (WIDTH + 1, 9, WIDTH + 9, 20))], "boxes outside of their image", []),
    "left": ([("cat", (-3, 7, 24, 30))], "boxes that reach out of their images", [OUT]),
    "right": ([("cat", (61, 7, WIDTH + 5, 30))], "boxes that reach out of their images", [[60, 6, 4, 24]]),
    "unknown": ([("dog", (9, 9, 20, 20))], "objects of unknown classes", []),
    "nameless": ([("", (9, 9, 20, 20))], "objects of unknown classes", []),
    "twice": ([PLAIN], "objects listed twice", []),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_boxes(voc, kind):
    objects, fault, left = ODD[kind]
    voc.add("a", [PLAIN, *objects])
    content = voc.convert("--classes", "cat")["train"]
    assert boxes(content, "a") == [[4, 6, 20, 24], *left]
    (line,) = voc.oddities()
    assert line.startswith(f"{fault}: a.xml: object 2")


def test_counts_are_told(voc, capsys):
    voc.add("a", [PLAIN, PLAIN, ("cat", (-3, 7, 24, 30))])
    voc.convert()
    told = capsys.readouterr().out
    assert "left out: 1 objects listed twice (a.xml: object 2: cat [4, 6, 24, 30])" in told
    assert "changed: clipped: 1 boxes that reach out of their images (a.xml: object 3" in told
    assert "train: 2 images, 3 objects" in told
    assert "classes: cat" in told


def test_difficult_objects_are_ignored_or_kept(voc):
    voc.add("a", [PLAIN], difficult=1, truncated=1)
    assert voc.convert()["train"]["annotations"][0]["iscrowd"] == 1
    assert {line.split(":")[0] for line in voc.oddities()} == {"difficult objects", "truncated objects"}
    voc.out = voc.root / "other"
    assert voc.convert("--difficult", "keep")["train"]["annotations"][0]["iscrowd"] == 0


#: annotations whose image is odd: what is written, and under which name it is noted
NO_USE = {
    "missing": ({"image": ""}, "missing images"),
    "size": ({"size": (WIDTH, HEIGHT + 1)}, "image sizes that disagree with the files"),
}


@pytest.mark.parametrize("kind", NO_USE)
def test_images_of_no_use(voc, kind):
    options, fault = NO_USE[kind]
    voc.add("a", [PLAIN], **options)
    assert [i["file_name"] for i in voc.convert()["train"]["images"]] == ["rest1.png"]
    (line,) = voc.oddities()
    assert line.startswith(f"{fault}: a.xml")


def test_a_cut_image(voc):
    voc.add("a", [PLAIN])
    path = voc.img / "a.png"
    path.write_bytes(path.read_bytes()[:200])
    assert len(voc.convert()["train"]["images"]) == 1
    assert voc.oddities() == ["truncated images: a.xml: a.png"]


def test_a_turned_photograph(voc):
    """Its size is said as it is stored, so its boxes are of that; it is read turned."""
    voc.add("a", [PLAIN], image="")
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(voc.img / "a.jpg", (WIDTH, HEIGHT), exif=exif)
    voc.convert()
    assert voc.oddities() == [
        "photographs that their EXIF entry turns: a.xml: 64 x 48, but 48 x 64 when read",
    ]


def test_a_size_of_zero_says_nothing(voc):
    voc.add("a", [PLAIN], size=(0, 0))
    assert [(i["width"], i["height"]) for i in voc.convert()["train"]["images"]] == [(WIDTH, HEIGHT)] * 2


def test_the_annotations_own_name_counts(voc):
    """An annotation that was copied names the other's image."""
    voc.add("a", [("cat", (9, 9, 20, 20))], filename="rest1.png")
    assert boxes(voc.convert()["train"], "a") == [[8, 8, 12, 12]]
    assert voc.oddities() == ["annotations that name another file: a.xml: rest1.png, but a.png is there"]


def test_a_file_named_inside_is_found(voc):
    voc.add("a", [PLAIN], image="", filename="C:\\photos\\b c.JPG")
    write_image(voc.img / "b c.JPG", (WIDTH, HEIGHT), format="JPEG")
    assert [i["file_name"] for i in voc.convert()["train"]["images"]] == ["b c.JPG", "rest1.png"]


def test_an_image_annotated_twice(voc):
    voc.add("z", [PLAIN], image="", filename="rest1.png")
    assert len(voc.convert()["train"]["annotations"]) == 1
    assert voc.oddities() == ["images annotated twice: z.xml: rest1.png stands in rest1.xml"]


def test_images_without_objects_stay(voc):
    voc.add("a", [])
    write_image(voc.img / "bare.png", (WIDTH, HEIGHT))
    assert len(voc.convert()["train"]["images"]) == 2
    assert voc.oddities() == ["images without annotations: bare.png", "images without objects: a.png"]


def test_parts_of_objects_are_no_objects(voc):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    voc.add("a", [])
    (voc.xml / "a.xml").write_text(written([PLAIN]).replace("</object>", f"{part}</object>"))
    content = voc.convert()["train"]
    assert boxes(content, "a") == [[4, 6, 20, 24]]
    assert [c["name"] for c in content["categories"]] == ["cat"]


ENTITY = '<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY secret SYSTEM "file:{path}">]>'
BOMB = '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
BROKEN = {
    "cut": (lambda text, path: text[:60], "not valid XML"),
    "empty": (lambda text, path: "", "not valid XML"),
    "other": (lambda text, path: "<html/>", "starts with <html>"),
    "encoding": (lambda text, path: f'<?xml version="1.0" encoding="klingon"?>{text}', "klingon"),
    "external": (
        lambda text, path: ENTITY.format(path=path) + text.replace("cat", "&secret;"),
        "declares entities, which are not resolved",
    ),
    "bomb": (lambda text, path: BOMB + text.replace("cat", "&b;"), "declares entities, which are not resolved"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_xml_is_one_line(voc, capsys, kind):
    spoil, message = BROKEN[kind]
    secret = voc.root / "secret.txt"
    secret.write_text("cat")
    path = voc.xml / "rest1.xml"
    path.write_text(spoil(path.read_text(), secret))
    with pytest.raises(SystemExit):
        run_cli(voc.convert, DataError)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: ")
    assert message in line
    assert not voc.out.exists()
