"""CrowdHuman's annotations and detections as files: what is wrong with broken ones, and the command that reads them."""

from __future__ import annotations

import json
import math
import runpy
import sys

import pytest
from support.crowd_scenes import RELEASED, TOY, TRUTH, Files, released_detections

from pgd.evaluation.odgt import CrowdHumanError, read_detections, read_odgt


def lines(*texts: str) -> str:
    return "\n".join(texts)


GOOD = '{"ID": "a,1", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3, 4]}]}'


@pytest.mark.parametrize(
    "text, error",
    [
        (lines(GOOD, "", '{"ID": "b", "gtbox'), r"line 3: no complete JSON .*cut off"),
        (lines(GOOD, GOOD), r"line 2: 'a,1' has been on line 1"),
        (lines("[1]"), r"line 1: not an image of CrowdHuman; a line is"),
        (lines(GOOD, '{"gtboxes": []}'), r"line 2: no 'ID'"),
        (lines('{"ID": 7, "gtboxes": []}'), r"line 1: ID 7 is no text"),
        (lines('{"ID": "b"}'), r"line 1: no 'gtboxes'"),
        (lines('{"ID": "b", "gtboxes": [{"tag": "person"}]}'), r"line 1: no 'fbox'"),
        (lines('{"ID": "b", "gtboxes": [{"fbox": [1, 2, 3, 4]}]}'), r"line 1: no 'tag'"),
        (lines('{"ID": "b", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3]}]}'), r"line 1: fbox: not rows of 4 num"),
        (lines('{"ID": "b", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3, NaN]}]}'), r"line 1: fbox: .*finite"),
        (lines('{"ID": "b", "gtboxes": [{"tag": "x", "fbox": [1, 2, 3, 4], "extra": 3}]}'), r"line 1: not an image"),
        (
            lines('{"ID": "b", "gtboxes": [{"tag": "x", "fbox": [1, 2, 3, 4], "extra": {"ignore": "0"}}]}'),
            r"'0' is no num",
        ),
        *(
            (
                lines(GOOD, f'{{"ID": "b", "gtboxes": [{{"tag": "{tag}", "fbox": {box}}}]}}'),
                rf"line 2: 'b': fbox \[{box[1:-1]}\] is of negative size: write \[x, y, width, height\] or delete",
            )
            for tag, box in (("person", "[50, 50, -20, -20]"), ("person", "[5, 5, 9, -1]"), ("mask", "[5, 5, -1, 9]"))
        ),
        ("\n", r"no image in it"),
        ("PK\xfe\xff", r"line 1: .*decode"),
    ],
)
def test_broken_annotations(tmp_path, text, error):
    path = tmp_path / "broken.odgt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CrowdHumanError, match=error) as caught:
        read_odgt(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def without(key: str):
    return lambda found: [{k: v for k, v in d.items() if k != key} for d in found]


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda found: found + found[:1], r"'000,ab0' are there twice \(entry 3\)"),
        (lambda found: [*found, {**found[0], "ID": "zzz"}], r"'zzz': not in the annotations; the ID is the stem"),
        (lambda found: found[1:], r"no detections of '000,ab0'; .*empty list of boxes"),
        (lambda found: [], r"no detections of '000,ab0' and 1 more"),
        (lambda found: [{**found[0], "boxes": [[1, 2, 3, 4, math.nan]]}], r"'000,ab0': not all numbers are finite"),
        (lambda found: [{**found[0], "boxes": [[1, 2, math.inf, 4, 0.5]]}], r"'000,ab0': not all numbers are finite"),
        (lambda found: [{**found[0], "boxes": [[1, 2, 3, 0.5]]}], r"'000,ab0': not rows of 5 numbers"),
        (lambda found: [{**found[0], "boxes": [[1, 2, 3, 4, 0.5], [1]]}], r"'000,ab0': not rows of 5 numbers"),
        (lambda found: [{**found[0], "boxes": [{"box": 1}]}], r"'000,ab0': not rows of 5 numbers"),
        (lambda found: [{**found[0], "width": 0}], r"'000,ab0': 0 x 100 is no size"),
        (lambda found: [{**found[0], "height": "tall"}], r"'000,ab0': not rows of 2 numbers"),
        (without("height"), r"entry 1: needs ID, width, height, boxes and nothing else"),
        (lambda found: [{**found[0], "dtboxes": []}], r"entry 1: .* it has .*dtboxes"),
        (lambda found: [{**found[0], "ID": 7}], r"entry 1: ID 7 is no text"),
        (lambda found: ["a"], r"entry 1: needs ID"),
    ],
)
def test_broken_detections(tmp_path, change, error):
    toy = Files(tmp_path, TOY)
    toy.detections = change(toy.detections)
    with pytest.raises(CrowdHumanError, match=error) as caught:
        toy.evaluate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text, error", [('[{"ID": "a", "wid', "no complete JSON .*cut off"), ("{}", "not a list of")])
def test_broken_detections_file(tmp_path, text, error):
    path = tmp_path / "detections.json"
    path.write_text(text)
    with pytest.raises(CrowdHumanError, match=error):
        read_detections(path)


def test_command(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pgd.evaluation", *map(str, arguments)])
        runpy.run_module("pgd.evaluation", run_name="__main__")

    run(TRUTH, RELEASED / "detections.json")
    assert capsys.readouterr().out == "AP 49.482  MR 88.639  JI 47.375\n"
    part = tmp_path / "part.json"
    part.write_text(json.dumps(released_detections()[:9]))
    with pytest.raises(SystemExit, match=r"error: no detections of '.*' and 30 more"):
        run(TRUTH, part)
    run("--subset", TRUTH, part)
    assert capsys.readouterr().out.startswith("AP ")
    with pytest.raises(SystemExit, match=r"error: .*No such file"):
        run(TRUTH, tmp_path / "none.json")


def test_a_mark_of_the_byte_order_is_passed_over(tmp_path):
    path = tmp_path / "marked.odgt"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\n")
    assert len(read_odgt(path)) == 1
