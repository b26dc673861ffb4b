"""CrowdHuman's annotations: read with every fault told by its line, and converted by the released rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.crowd_tree import (
    COCO,
    FIRST,
    LINES,
    SIZES,
    asked,
    content_of,
    error_of,
    stand_aside,
    tree,
    write_image,
    write_lines,
)

from benchmark.data.crowdhuman import Faults, Record, read_odgt, to_coco
from benchmark.prepare import prepare
from pgd.evaluation.odgt import read_odgt as read_truth

__all__ = ["stand_aside", "tree"]  # fixtures
GOOD_BOX = {"tag": "person", "fbox": [0, 0, 4, 4]}


def read(path: Path) -> tuple[list[Record], Faults]:
    faults = Faults(path)
    return read_odgt(path, faults), faults


def test_records(tree):
    records, faults = read(tree / "annotation_train.odgt")
    assert not faults.found
    assert [(r.id, r.line, len(r.boxes)) for r in records] == [(FIRST, 1, 3), ("b,2", 2, 3), ("c,3", 3, 0)]
    full, beyond, mask = records[0].boxes
    assert (full.full, full.visible, full.head) == ((10, 5, 20, 30), (11, 6, 10, 12), (14, 5, 6, 7))
    assert not full.ignore, "the head's attributes say nothing about the person"
    assert beyond.visible is beyond.head is None
    assert not beyond.ignore
    assert mask.tag == "mask"
    assert mask.ignore
    assert [b.ignore for b in records[1].boxes] == [True, False, True]


def test_conversion_by_hand(tree):
    records, _ = read(tree / "annotation_train.odgt")
    assert to_coco(records, SIZES) == COCO


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"ID": "x", "gtboxes": [', "1 broken lines (line 4: no JSON, Expecting value"),
        ("\ufffd\x00", "1 broken lines (line 4: no JSON, "),
        ([1], "1 broken lines (line 4: no list 'gtboxes')"),
        ({"ID": "x"}, "1 broken lines (line 4: no list 'gtboxes')"),
        ({"ID": "x", "gtboxes": {}}, "1 broken lines (line 4: no list 'gtboxes')"),
        ("[" * 100_000, "1 broken lines (line 4: no JSON"),
        ({"gtboxes": []}, "1 records without an ID (line 4)"),
        ({"ID": "", "gtboxes": []}, "1 records without an ID (line 4: ID '')"),
        ({"ID": 7, "gtboxes": []}, "1 records without an ID (line 4: ID 7)"),
        ({"ID": "../x", "gtboxes": []}, "1 records without an ID (line 4: ID '../x')"),
        ({"ID": "\ud800", "gtboxes": []}, r"1 records without an ID (line 4: ID '\ud800')"),
        ({"ID": "b,2", "gtboxes": []}, "1 duplicate IDs (line 4: 'b,2' stands in line 2)"),
        ({"ID": "x", "gtboxes": [GOOD_BOX, 5]}, "1 broken boxes (line 4: box 2: no JSON object)"),
        ({"ID": "x", "gtboxes": [{"fbox": [0, 0, 1, 1]}]}, "1 broken boxes (line 4: box 1: no tag)"),
        ({"ID": "x", "gtboxes": [{"tag": "person"}]}, "1 broken boxes (line 4: box 1: fbox is not four numbers)"),
        ('{"ID": "x", "gtboxes": [{"tag": "mask", "fbox": [0, 0, NaN, 1]}]}', "box 1: fbox is not four numbers"),
        (f'{{"ID": "x", "gtboxes": [{{"tag": "a", "fbox": [0, 0, 1{"0" * 400}, 1]}}]}}', "fbox is not four numbers"),
        ({"ID": "x", "gtboxes": [{**GOOD_BOX, "fbox": ["1", 0, 1, 1]}]}, "box 1: fbox is not four numbers"),
        ({"ID": "x", "gtboxes": [{**GOOD_BOX, "fbox": [1, 2, 3]}]}, "box 1: fbox is not four numbers"),
        ({"ID": "x", "gtboxes": [{**GOOD_BOX, "extra": None}]}, "box 1: extra is no JSON object"),
        (
            {"ID": "x", "gtboxes": [{**GOOD_BOX, "fbox": [1, 2, 0, 5]}]},
            "1 boxes without area (line 4: box 1: fbox [1, 2, 0, 5])",
        ),
        (
            {"ID": "x", "gtboxes": [{**GOOD_BOX, "fbox": [1, 2, 5, -1]}]},
            "1 boxes of negative size (line 4: box 1: fbox [1, 2, 5, -1] is [x, y, width, height])",
        ),
        (
            {"ID": "x", "gtboxes": [{**GOOD_BOX, "extra": {"ignore": "0"}}]},
            "1 broken boxes (line 4: box 1: extra.ignore '0' is no number)",
        ),
        ({"ID": "gone", "gtboxes": []}, "1 missing images (line 4: "),
    ],
)
def test_faults_name_the_line(tree, line, said):
    path = tree / "annotation_train.odgt"
    write_lines(path, [*LINES["train"], line])
    if "gone" not in str(line):
        write_image(tree / "Images" / "x.jpg", (9, 9))
    message = error_of(asked(tree))
    assert message.startswith(f"{path}: ")
    assert said in message
    assert message.endswith("; mend the data or fetch it again, or leave these out by broken: skip")


def test_negative_boxes_are_left_out_of_both_files(tree, capsys):
    """The metric would count a person whom nobody can find."""
    lines = json.loads(json.dumps(LINES["val"]))
    lines[0]["gtboxes"].append({**GOOD_BOX, "fbox": [9, 9, -4, -4]})
    write_lines(tree / "annotation_val.odgt", lines)
    info = prepare("crowd", asked(tree, broken="skip"))
    assert "left out 1 boxes of negative size (line 1: box 2: fbox [9, 9, -4, -4]" in capsys.readouterr().out
    assert [json.loads(line) for line in Path(info.val_odgt).read_text().splitlines()] == LINES["val"]
    assert [a["bbox"] for a in content_of(info.val_annotations)["annotations"]] == [[5, 5, 60, 20], [0, 0, 9, 9]]


def test_a_mark_of_the_byte_order_is_passed_over(tree):
    plain = prepare("crowd", asked(tree))
    path = tree / "annotation_val.odgt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    marked = prepare("crowd", asked(tree))
    assert content_of(marked.val_annotations) == content_of(plain.val_annotations)
    assert list(read_truth(marked.val_odgt)) == ["v,1", "v,2"]


def test_a_name_too_long_for_a_file(tree):
    write_lines(tree / "annotation_val.odgt", [*LINES["val"], {"ID": "a" * 300, "gtboxes": []}])
    assert f"1 missing images (line 3: {tree / 'Images' / ('a' * 300)}.jpg)" in error_of(asked(tree))


def test_images_elsewhere_are_refused(tree, tmp_path):
    image = tree / "Images" / "b,2.jpg"
    image.rename(tmp_path / "away.jpg")
    image.symlink_to(tmp_path / "away.jpg")
    assert f"1 images that are links out of the root (line 2: {image})" in error_of(asked(tree))


def test_nobody_to_find(tree):
    write_lines(tree / "annotation_val.odgt", [LINES["val"][1]])
    assert "val.json: nothing but 1 regions to ignore (iscrowd) in 1 val images; give" in error_of(asked(tree))


def test_bytes_that_are_no_text(tree):
    path = tree / "annotation_val.odgt"
    path.write_bytes(path.read_bytes() + b"\xff\xd8\xff\n")
    assert f"{path}: 1 broken lines (line 3: no JSON, 'utf-8' codec" in error_of(asked(tree))


@pytest.fixture
def faulty(tree) -> Path:
    """Good records between faulty ones of every kind, and boxes likewise."""
    lines = [
        "{cut",
        LINES["train"][0],
        "",
        {"gtboxes": []},
        {"ID": FIRST, "gtboxes": []},
        {"ID": "gone", "gtboxes": [GOOD_BOX]},
        {"ID": "empty", "gtboxes": [GOOD_BOX]},
        {
            "ID": "b,2",
            "other": 1,
            "gtboxes": [5, *LINES["train"][1]["gtboxes"], {**GOOD_BOX, "fbox": [3, 3, 0, 4], "extra": {"box_id": 8}}],
        },
        *["{cut"] * 3,
        LINES["train"][2],
    ]
    write_lines(tree / "annotation_train.odgt", lines)
    (tree / "Images" / "empty.jpg").write_bytes(b"")
    return tree


def test_refuse_tells_all_kinds_at_once(faulty):
    message = error_of(asked(faulty))
    images = faulty / "Images"
    assert "4 broken lines (line 1: no JSON, " in message
    assert "; line 9: no JSON" in message
    assert "; line 10: no JSON" in message
    assert "line 11" not in message
    assert "; ...)" in message
    assert (
        ", 1 records without an ID (line 4), 1 duplicate IDs (line 5: '273271,1a0d6000b9e1f5b7' stands in line 2), "
        in (message)
    )
    assert (
        "1 broken boxes (line 8: box 1: no JSON object), 1 boxes without area (line 8: box 5: fbox [3, 3, 0, 4]), "
        in (message)
    )
    assert (
        f"1 missing images (line 6: {images}/gone.jpg), 1 unreadable images (line 7: {images}/empty.jpg); mend"
        in message
    )


def test_skip_leaves_out_what_is_broken(faulty, capsys):
    info = prepare("crowd", asked(faulty, broken="skip"))
    assert content_of(info.train_annotations) == COCO, "image ids follow what is left"
    told = capsys.readouterr().out
    assert told.startswith(f"{faulty / 'annotation_train.odgt'}: left out 4 broken lines (line 1: ")
    assert all(part in told for part in ("1 duplicate IDs", "1 missing images", "1 boxes without area (line 8: box 5"))
    kept = [
        json.loads(line) for line in (Path(info.val_odgt).parent / "annotation_train.odgt").read_text().splitlines()
    ]
    assert kept[0] == LINES["train"][0]
    assert kept[2] == LINES["train"][2]
    assert len(kept) == 3
    # A broken box would break the metric; one without area counts in the released AP, so it stays in the .odgt.
    assert kept[1]["other"] == 1
    assert kept[1]["gtboxes"][:-1] == LINES["train"][1]["gtboxes"]
    assert kept[1]["gtboxes"][-1]["fbox"] == [3, 3, 0, 4]


def test_what_skip_leaves_is_good_for_the_metric(faulty):
    (faulty / "annotation_train.odgt").rename(faulty / "annotation_val.odgt")
    write_lines(faulty / "annotation_train.odgt", LINES["train"])
    info = prepare("crowd", asked(faulty, broken="skip"))
    truths = read_truth(info.val_odgt)
    assert [f"{name}.jpg" for name in truths] == [i["file_name"] for i in content_of(info.val_annotations)["images"]]
    annotations = content_of(info.val_annotations)["annotations"]
    assert sum(t.persons for t in truths.values()) == sum(not a["iscrowd"] for a in annotations) + 1


def test_nothing_left(tree):
    write_lines(tree / "annotation_val.odgt", [])
    path = tree / "annotation_val.odgt"
    assert error_of(asked(tree)) == f"{path}: no image is left; is it an annotation file of CrowdHuman?"
