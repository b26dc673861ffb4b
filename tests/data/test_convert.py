"""Pascal VOC to a COCO tree: every oddity is seen, nothing else is lost, and `prepare` takes what comes out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.coco_tree import write_image

from benchmark.convert import main
from benchmark.data.checks import check_split
from benchmark.data.faults import DataError, Faults
from benchmark.data.foreign import is_val
from benchmark.data.voc import read_voc
from benchmark.experiment.cli import run_cli
from benchmark.experiment.datasets import LAYOUT

#: of all images, pixels
WIDTH, HEIGHT = 64, 48
PLAIN = ("cat", (5, 7, 24, 30))


def written(objects: list, size: tuple[int, int] = (WIDTH, HEIGHT), filename: str = "", **flags: int) -> str:
    """An annotation with objects ``(name, (xmin, ymin, xmax, ymax))``."""
    entries = "".join(
        f"<object><name>{name}</name>{''.join(f'<{k}>{v}</{k}>' for k, v in flags.items())}<bndbox>"
        + "".join(f"<{side}>{n}</{side}>" for side, n in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{sides}{entries}</annotation>"


class Voc:
    """A set in the making: annotations in ``xml/``, images in ``img/``."""

    def __init__(self, root: Path) -> None:
        self.root, self.xml, self.img, self.out = root, root / "xml", root / "img", root / "out"
        for folder in (self.xml, self.img):
            folder.mkdir()
        # of these one is always for val
        for name in ("rest1", "rest2"):
            self.add(name, [PLAIN])
        (root / "val.txt").write_text("rest2\n")

    def add(self, name: str, objects: list, image: str = ".png", **options) -> None:
        (self.xml / f"{name}.xml").write_text(written(objects, **options))
        if image:
            write_image(self.img / f"{name}{image}", (WIDTH, HEIGHT))

    def convert(self, *more: str) -> dict[str, dict]:
        """Runs the command; COCO's content by split."""
        arguments = ["--annotations", str(self.xml), "--images", str(self.img), "--out", str(self.out), *more]
        if "--split" not in more:
            arguments += ["--split", str(self.root / "val.txt")]
        sys.argv = ["convert", "voc", *arguments]
        main()
        return {name: json.loads((self.out / file).read_text()) for name, (file, _) in LAYOUT.items()}

    def oddities(self) -> list[str]:
        return (self.out / "oddities.txt").read_text().splitlines()


@pytest.fixture
def voc(tmp_path, monkeypatch) -> Voc:
    monkeypatch.setattr(sys, "argv", [])
    return Voc(tmp_path)


def boxes(content: dict, name: str) -> list[list[float]]:
    """Of an image, by the beginning of its file's name."""
    ids = {image["id"] for image in content["images"] if image["file_name"].startswith(name)}
    return [entry["bbox"] for entry in content["annotations"] if entry["image_id"] in ids]


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


def test_hash_split_is_a_property_of_the_name():
    names = [f"photo{i}.jpg" for i in range(2000)]
    val = {name for name in names if is_val(name, 0.2)}
    assert 0.17 < len(val) / len(names) < 0.23
    assert val < {name for name in names if is_val(name, 0.3)}
    # on every machine: their SHA-256 start with 0x50, 0x7a and 0x92
    assert [is_val(name, 0.5) for name in ("a.jpg", "b.jpg", "c.jpg")] == [True, True, False]


def test_hash_split(voc):
    for number in range(20):
        voc.add(f"p{number}", [PLAIN])
    names = {split: {i["file_name"] for i in c["images"]} for split, c in voc.convert("--split", "0.4").items()}
    everything = {path.name for path in voc.img.iterdir()}
    assert names["val"] == {name for name in everything if is_val(name, 0.4)}
    assert names["train"] == everything - names["val"]
    assert names["train"] == {path.name for path in (voc.out / "train2017").iterdir()}


def test_own_split_files(voc):
    voc.add("a", [PLAIN])
    (voc.root / "train.txt").write_text("rest1.png\n\nghost\n")
    parts = voc.convert("--split", str(voc.root / "train.txt"), str(voc.root / "val.txt"))
    assert [[i["file_name"] for i in c["images"]] for c in parts.values()] == [["rest1.png"], ["rest2.png"]]
    assert voc.oddities() == [
        "names in split files that no image has: train.txt: ghost",
        "images of neither split: a.png",
    ]


def test_split_by_folders(voc):
    for split in ("train", "test"):
        (voc.xml / split).mkdir()
        for name in ("x", "y"):
            voc.add(f"{split}/{name}", [PLAIN])
    parts = voc.convert("--split", str(voc.xml / "train"), str(voc.img / "test"))
    names = [[i["file_name"] for i in c["images"]] for c in parts.values()]
    assert names == [["train/x.png", "train/y.png"], ["test/x.png", "test/y.png"]]


BAD_SPLITS = {
    "both": (["rest1\nrest2\n", "rest2\n"], "1 images are in both (first: rest2.png)"),
    "empty": (["ghost\n"], "no image is in val"),
    "all": (["rest1\nrest2\n"], "no image is in train"),
}


@pytest.mark.parametrize("kind", BAD_SPLITS)
def test_bad_splits(voc, kind):
    texts, message = BAD_SPLITS[kind]
    paths = [voc.root / f"{number}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    with pytest.raises(DataError) as error:
        voc.convert("--split", *map(str, paths))
    assert message in str(error.value)


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


def test_refuses_to_write_over(voc):
    voc.convert()
    with pytest.raises(DataError, match="is there already; delete it"):
        voc.convert()


def test_refuses_empty_folders(voc):
    for path in voc.xml.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no XML file in it"):
        voc.convert()
    with pytest.raises(DataError, match="no such folder"):
        voc.add("a", [PLAIN])
        read_voc(voc.xml, voc.root / "nowhere", Faults(voc.xml))


def test_refuses_sets_without_objects(voc):
    with pytest.raises(DataError, match="no object is left; left out: 2 objects of unknown classes"):
        voc.convert("--classes", "dog")


@pytest.mark.parametrize("copy", [False, True])
def test_links_or_copies(voc, copy):
    voc.convert(*(["--copy"] if copy else []))
    own, new = voc.img / "rest1.png", voc.out / "train2017" / "rest1.png"
    assert own.read_bytes() == new.read_bytes()
    assert os.path.samefile(own, new) != copy


def test_prepare_takes_it(voc):
    voc.add("a", [PLAIN, ("dog", (-3, 1, 80, 40))], difficult=1)
    contents = voc.convert()
    for name, (file, folder) in LAYOUT.items():
        split = check_split(voc.out / file, voc.out / folder)
        assert split.content == contents[name]
        assert split.changes == {}


#: by the name of the data set: folders of annotations and images, split, and what is known of it
PUBLISHED = {
    "bccd": (
        ("BCCD/Annotations", "BCCD/JPEGImages", ["BCCD/ImageSets/Main/trainval.txt", "BCCD/ImageSets/Main/test.txt"]),
        {"train": (292, 3941), "val": (72, 945)},
        {"boxes without area": 2, "truncated objects": 1131},
    ),
    "cards": (
        ("images", "images", ["images/train", "images/test"]),
        {"train": (296, 527), "val": (67, 143)},
        {"truncated objects": 34},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets(voc, name):
    if not (root := Path(os.environ.get("PGD_REAL_DATA", "nowhere")) / name).is_dir():
        pytest.skip("no photographs; name the folder of bccd/ and cards/ by PGD_REAL_DATA")
    (annotations, images, split), counts, odd = PUBLISHED[name]
    voc.xml, voc.img = root / annotations, root / images
    contents = voc.convert("--split", *(str(root / one) for one in split))
    assert {s: (len(c["images"]), len(c["annotations"])) for s, c in contents.items()} == counts
    kinds = [line.split(":")[0] for line in voc.oddities()]
    assert {kind: kinds.count(kind) for kind in kinds} == odd
    for file, folder in LAYOUT.values():
        assert check_split(voc.out / file, voc.out / folder).changes == {}
