"""Other formats to a COCO tree: every oddity is seen, nothing else is lost, and `prepare` takes what comes out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.foreign_sets import HEIGHT, PLAIN, WIDTH, Plain, Voc

from benchmark.data.checks import check_split
from benchmark.data.faults import DataError, Faults
from benchmark.data.foreign import is_val
from benchmark.data.voc import read_voc
from benchmark.experiment.datasets import LAYOUT


@pytest.fixture
def voc(tmp_path, monkeypatch) -> Voc:
    monkeypatch.setattr(sys, "argv", [])
    return Voc(tmp_path)


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


def test_links_to_elsewhere_are_left_out(voc):
    """An unpacked archive may hold links to anything; those within the images' folder are followed."""
    (voc.root / "elsewhere.png").write_bytes((voc.img / "rest1.png").read_bytes())
    for name, target in (("out", voc.root / "elsewhere.png"), ("within", voc.img / "rest1.png")):
        voc.add(name, [PLAIN], image="")
        (voc.img / f"{name}.png").symlink_to(target)
    names = {image["file_name"] for content in voc.convert().values() for image in content["images"]}
    assert names == {"rest1.png", "rest2.png", "within.png"}
    assert voc.oddities() == [
        f"file names that lead out of the images' folder: out.xml: out.png lies in {voc.root}",
    ]
    assert not (voc.out / "train2017" / "out.png").exists()


def test_prepare_takes_it(voc):
    voc.add("a", [PLAIN, ("dog", (-3, 1, 80, 40))], difficult=1)
    contents = voc.convert()
    for name, (file, folder) in LAYOUT.items():
        split = check_split(voc.out / file, voc.out / folder)
        assert split.content == contents[name]
        assert split.changes == {}


@pytest.fixture
def yolo(tmp_path, monkeypatch) -> Plain:
    """Shares of 64 x 48 pixels."""
    monkeypatch.setattr(sys, "argv", [])
    found = Plain(tmp_path, "yolo")
    for name in ("rest1", "rest2"):
        (found.xml / f"{name}.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    return found


def test_yolo(yolo):
    content = yolo.convert("--classes", "cat", "dog")["train"]
    assert content["annotations"][0]["bbox"] == [24, 12, 16, 24]
    assert content["annotations"][0]["category_id"] == 2
    assert yolo.oddities() == []


#: lines beside a sound one, and what is noted of them
YOLO = {
    "polygon": ("0 0.1 0.1 0.2 0.1 0.2 0.2", "boxes that are not four numbers: rest1.txt: line 2: cat"),
    "number": ("2 0.5 0.5 0.2 0.2", "objects of unknown classes: rest1.txt: line 2: 'class 2'"),
    "outside": ("0 1.5 0.5 0.2 0.2", "boxes outside of their image: rest1.txt: line 2: "),
    "tiny": ("0 0.5 0.5 0.2 0.01", "boxes less than a pixel wide or high: rest1.txt: line 2: "),
    "tiny inside": ("0 1.0 0.5 0.02 0.2", "boxes less than a pixel wide or high: rest1.txt: line 2: "),
    "beyond": ("0 1.0 0.5 0.2 0.2", "boxes that reach out of their images: rest1.txt: line 2: "),
}


@pytest.mark.parametrize("kind", YOLO)
def test_odd_lines_of_yolo(yolo, kind):
    line, told = YOLO[kind]
    (yolo.xml / "rest1.txt").write_text(f"1 0.5 0.5 0.25 0.5\n{line}\n\n")
    assert len(yolo.convert("--classes", "cat", "dog")["train"]["annotations"]) == 1 + (kind == "beyond")
    (found,) = yolo.oddities()
    assert found.startswith(told)


def test_a_rounding_of_shares_is_not_odd(yolo):
    (yolo.xml / "rest1.txt").write_text("0 0.500001 0.5 1.0 1.0\n")
    ((x, y, w, h),) = [entry["bbox"] for entry in yolo.convert("--classes", "cat", "dog")["train"]["annotations"]]
    assert (y, h, x + w) == (0, HEIGHT, WIDTH)
    assert yolo.oddities() == []


def test_yolo_needs_names(yolo):
    with pytest.raises(DataError, match="name them in this order by --classes"):
        yolo.convert()


ROWS = "filename,width,height,class,xmin,ymin,xmax,ymax\nrest1.png,64,48,cat,4,6,24,30\n"


@pytest.fixture
def table(tmp_path, monkeypatch) -> Plain:
    monkeypatch.setattr(sys, "argv", [])
    (tmp_path / "boxes.csv").write_text(f"{ROWS}rest2.png,64,48,dog,4,6,24,30\nrest1.png,64,48,dog,0,0,64,48\n")
    return Plain(tmp_path, "csv")


def test_csv(table):
    content = table.convert()["train"]
    found = [(entry["bbox"], entry["category_id"]) for entry in content["annotations"]]
    assert found == [([4, 6, 20, 24], 1), ([0, 0, 64, 48], 2)]
    assert table.oddities() == []


def test_odd_rows_of_tables(table):
    path = table.root / "boxes.csv"
    path.write_text(f"{path.read_text()}rest1.png,64,48,cat,9,9,x,20\nghost.png,64,48,cat,1,1,9,9\n")
    table.convert()
    assert table.oddities() == [
        "missing images: boxes.csv: ghost.png",
        "boxes that are not four numbers: boxes.csv: line 5: cat",
    ]


BAD_TABLES = {
    "column": ("filename,xmin,ymin,xmax,ymax\n", "line 1: no column for label; call one class or label"),
    "short": (f"{ROWS}rest2.png,64\n", "line 3: 2 columns and not 8"),
    "empty": ("", "empty; give a table"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_tables(table, kind):
    text, told = BAD_TABLES[kind]
    (table.root / "boxes.csv").write_text(text)
    with pytest.raises(DataError) as error:
        table.convert()
    assert told in str(error.value)


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
