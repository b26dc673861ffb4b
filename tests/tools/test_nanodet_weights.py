"""Weights of NanoDets from files for ncnn: found by the graph alone, whatever the order in the files."""

from __future__ import annotations

import hashlib
import sys

import pytest
import torch
from mmengine.config import Config
from support.detectors import QUIET
from support.file_server import Site, serve
from support.ncnn_files import files

from benchmark.data.faults import DataError
from benchmark.experiment.contexts import untrained
from tools import nanodet, ncnn

pytestmark = QUIET


def built(name: str, seed: int = 0):
    """A NanoDet with random weights, whose two towers are the same, as the published ones are."""
    config = Config.fromfile(nanodet.CONFIGS / f"{name}.py")
    torch.manual_seed(seed)
    detector = untrained(config.model)
    for parameter in detector.parameters():
        # every one can be told from all others, in half precision too
        parameter.data.normal_().copy_(parameter.data.half().float())
    detector.bbox_head.reg_convs.load_state_dict(detector.bbox_head.cls_convs.state_dict())
    return detector


@pytest.mark.parametrize(("half", "swapped"), [(False, False), (True, True)])
@pytest.mark.parametrize("name", nanodet.FILES)
def test_weights_are_found_by_the_graph(tmp_path, name, half, swapped):
    detector = built(name)
    graph, weights = files(detector, half, swapped)
    paths = tmp_path / "a.param", tmp_path / "a.bin"
    paths[0].write_text(graph)
    paths[1].write_bytes(weights)
    nanodet.convert(name, *paths, tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    expected = detector.state_dict()
    assert content["state_dict"].keys() == expected.keys()
    assert all(torch.equal(content["state_dict"][key], value) for key, value in expected.items())
    assert list(content["meta"]["dataset_meta"]["classes"])[:2] == ["person", "bicycle"]


def test_another_detector_is_refused(tmp_path):
    graph, weights = files(built("nanodet_m_320"), half=False, swapped=False)
    (tmp_path / "a.param").write_text(graph)
    (tmp_path / "a.bin").write_bytes(weights)
    for name, why in (
        ("nanodet_m_05x_320", r"backbone\.stages\.0\.0\.b1\.1\.0\.weight: \(58, 24, 1, 1\), where .* has \(24, 24"),
        ("nanodet_plus_m_416", r"73 convolutions, where this detector has 110"),
    ):
        with pytest.raises(DataError, match=rf"a\.param, .*a\.bin: {why}"):
            nanodet.convert(name, tmp_path / "a.param", tmp_path / "a.bin", tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()


def test_what_is_no_such_file_is_refused():
    graph, weights = files(built("nanodet_m_05x_320"), half=False, swapped=False)
    layers = ncnn.read_graph(graph)
    for wrong, why in (("", "begins with ''"), ("<html>\n", "begins with '<html>'")):
        with pytest.raises(DataError, match=why):
            ncnn.read_graph(wrong)
    with pytest.raises(DataError, match=r"^LSTM: a layer that is not known here$"):
        ncnn.read_graph(f"{graph}LSTM l 1 1 a b 0=3\n")
    with pytest.raises(DataError, match=r"end after \d+ bytes"):
        ncnn.read_convolutions(layers, weights[:-4])
    with pytest.raises(DataError, match=r"^8 of \d+ bytes .* none of the layers$"):
        ncnn.read_convolutions(layers, weights + b"\0" * 8)
    with pytest.raises(DataError, match=r"not known here \(0x000d4b38\)"):
        ncnn.read_convolutions(layers, (0x000D4B38).to_bytes(4, "little") + weights[4:])


def test_the_command_brings_all_three_and_leaves_what_is_there(tmp_path, monkeypatch, capsys):
    pages, facts = {}, {}
    for name, (place, *_) in nanodet.FILES.items():
        graph, weights = files(built(name), half=True, swapped=True)
        parts = graph.encode(), weights
        pages |= {f"/{place}.{kind}": part for kind, part in zip(("param", "bin"), parts, strict=True)}
        facts[name] = (place, *((len(part), hashlib.sha256(part).hexdigest()) for part in parts))
    monkeypatch.setattr(nanodet, "FILES", facts)
    with serve(Site(pages)) as site:
        monkeypatch.setattr(sys, "argv", ["nanodet", "--root", str(tmp_path), "--mirror", site.address])
        nanodet.main()
        expected = sorted(f"{name}.pth" for name in facts)
        assert sorted(path.name for path in tmp_path.iterdir()) == expected
        capsys.readouterr()
        nanodet.main()
        assert len(site.asked) == 6
    assert capsys.readouterr().out.count("was there") == 3
