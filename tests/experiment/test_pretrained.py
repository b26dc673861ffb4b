"""Pretrained weights come from a checked file on the disk, whatever address a config names them by."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader, get_external_models, get_torchvision_models
from support.detectors import model_config
from support.file_server import Site, serve
from support.worlds import LIGHT, light_content, same

from benchmark.data import download
from benchmark.data.faults import DataError
from benchmark.experiment import pretrained
from benchmark.experiment.config import detector_config, training_config, training_digest
from benchmark.experiment.pretrained import cache, local_weights, remote_of
from benchmark.experiment.settings import Detector, Job, SettingsError, parse
from benchmark.experiment.workspace import ROOT, file_digest
from benchmark.plan import check_pretrained
from pgd.checkpoint import CheckpointError

pytestmark = [pytest.mark.filterwarnings("ignore:DeprecationWarning. .num_anchors"), pytest.mark.slow]
PAPER = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmark/configs/paper").glob("*.py"))
KEY = "model.backbone.init_cfg.checkpoint"


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def named(content: bytes) -> str:
    """As torchvision and mmdet name what they publish."""
    return f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"


@pytest.fixture(scope="module")
def state() -> dict:
    """Weights for the backbone of the mini students."""
    return MODELS.build(copy.deepcopy(model_config("gfl")["backbone"])).state_dict()


@pytest.fixture
def site(state, tmp_path, monkeypatch):
    """A server with the weights under their published name, and an empty cache."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    content = saved(state)
    with serve(Site({f"/{named(content)}": content})) as running:
        known = {"resnet18": f"{running.address}/{named(content)}"}
        monkeypatch.setitem(pretrained.NAMED, "torchvision", lambda: known)
        yield running


def job(source: str) -> Job:
    """A plain student whose backbone has these weights."""
    content = light_content()
    options = {key: value for key, value in LIGHT.items() if "init_cfg" not in key}
    content["pairs"]["gfl"]["student"]["options"] = {**options, KEY: source}
    return parse(content).student("student", 0)


def training(source: str, data, work: Path) -> Config:
    return training_config(job(source), data, None, work)


def init(cfg: Config) -> dict:
    return cfg.model.student.backbone.init_cfg


@pytest.mark.parametrize("kind", ["torchvision", "address"])
def test_a_student_starts_from_the_file(site, state, tiny_data, tmp_path, kind):
    """Fetched once; where torch and mmengine keep what they have downloaded."""
    (path,) = site.files
    source = "torchvision://resnet18" if kind == "torchvision" else f"{site.address}{path}"
    for _ in range(2):
        cfg = training(source, tiny_data, tmp_path)
        local_weights(cfg)
    assert init(cfg) == {"type": "Pretrained", "checkpoint": str(tmp_path / "torch/hub/checkpoints" / path[1:])}
    assert site.asked == [(path, None)]
    model = MODELS.build(cfg.model)
    model.init_weights()
    assert same(model.student.backbone.state_dict(), state)


def test_the_path_is_in_no_digest(site, tiny_data, tmp_path):
    wanted = job("torchvision://resnet18")
    before = training_digest(wanted, tiny_data)
    local_weights(training_config(wanted, tiny_data, None, tmp_path))
    assert training_digest(wanted, tiny_data) == before
    assert check_pretrained(detector_config(wanted.detector)) == "torchvision://resnet18"


def test_nothing_else_of_a_config_is_touched(site, tiny_data, tmp_path):
    cfg = training("torchvision://resnet18", tiny_data, tmp_path)
    before = copy.deepcopy(cfg.to_dict())
    local_weights(cfg)
    before["model"]["student"]["backbone"]["init_cfg"]["checkpoint"] = init(cfg)["checkpoint"]
    assert cfg.to_dict() == before


def test_files_of_this_machine_stay_what_they_are(site, state, tiny_data, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    cfg = training(str(tmp_path / "a.pth"), tiny_data, tmp_path)
    before = copy.deepcopy(cfg.to_dict())
    local_weights(cfg)
    assert cfg.to_dict() == before
    assert site.asked == []


def test_wherever_in_a_model_they_are_named(site):
    part = {
        "type": "X",
        "init_cfg": [{"type": "Normal"}, {"type": "Pretrained", "checkpoint": "torchvision://resnet18"}],
    }
    cfg = Config({"model": {"necks": [part], "backbone": {"init_cfg": None}}})
    local_weights(cfg)
    assert cfg.model.necks[0].init_cfg[1].checkpoint == str(cache() / next(iter(site.files))[1:])


@pytest.mark.parametrize("config", PAPER)
def test_the_papers_backbones_are_those_that_mmengine_takes(config):
    """The first weights of torchvision, by which the paper's numbers came about, and not its best."""
    source = check_pretrained(detector_config(Detector(config)))
    name = source.rpartition("/")[2]
    known = get_torchvision_models() if source.startswith("torchvision://") else get_external_models()
    remote = remote_of(source)
    assert remote.url == known[source.partition("://")[2]]
    assert (remote.name, remote.sha256) == {
        "resnet50": ("resnet50-0676ba61.pth", "0676ba61"),
        "resnet101": ("resnet101-63fe2227.pth", "63fe2227"),
        "resnet152": ("resnet152-394f9c45.pth", "394f9c45"),
        "mobilenet_v2": ("mobilenet_v2_batch256_imagenet-ff34753d.pth", "ff34753d"),
    }[name]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torchvision://resnet50.imagenet1k_v1", "resnet50-0676ba61.pth"),
        ("torchvision://resnet50.imagenet1k_v2", "resnet50-11ad3fa6.pth"),
        ("torchvision://resnet50.default", "resnet50-11ad3fa6.pth"),
        ("modelzoo://resnet50", "resnet50-0676ba61.pth"),
        ("open-mmlab://detectron2/resnet50_caffe", "resnet50_msra-5891d200.pth"),
        ("openmmlab://resnet50_caffe", "resnet50_caffe-788b5fa3.pth"),
        ("https://example.org/a/b-0123abcd.pth?download=1", "b-0123abcd.pth"),
    ],
)
def test_names_mean_what_they_mean_to_mmengine(source, name):
    assert remote_of(source).name == name


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("torchvision://resnet5O", "no weights 'resnet5O'; did you mean 'resnet50'?"),
        (
            "torchvision://resnet50.imagenet1k_v3",
            "no weights 'resnet50.imagenet1k_v3'; did you mean 'resnet50.imagenet1k_v",
        ),
        ("open-mmlab://resnet50_cafe", "no weights 'resnet50_cafe'; did you mean 'resnet50_caffe'?"),
        (
            "https://example.org/resnet50.pth",
            "no digest in its name to check it by (as in resnet50-0676ba61.pth); download",
        ),
        (
            "s3://bucket/resnet50-0676ba61.pth",
            "no known kind of address; give torchvision://, open-mmlab://, https:// or",
        ),
    ],
)
def test_an_address_that_cannot_be_checked_is_refused_when_it_is_planned(source, said):
    cfg = detector_config(Detector("benchmark/configs/mini/gfl_r18.py", options={KEY: source}))
    with pytest.raises(SettingsError) as caught:
        check_pretrained(cfg)
    assert str(caught.value).startswith(f"{source}: {said}")


def test_a_wrong_file_in_the_cache_is_refused(site, tiny_data, tmp_path):
    """mmengine would take it; it is left where it lies."""
    (path,) = site.files
    kept = cache() / path[1:]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"cut off")
    with pytest.raises(DataError) as caught:
        local_weights(training("torchvision://resnet18", tiny_data, tmp_path))
    digest, expected = file_digest(kept), path[-12:-4]
    assert str(caught.value) == (
        f"{kept}: not the published file (its SHA-256 is {digest}, published is {expected}); move it away and run the "
        "same command again"
    )
    assert kept.read_bytes() == b"cut off"


def test_a_wrong_file_from_the_server_is_refused(site, tiny_data, tmp_path):
    (path,) = site.files
    site.files[path] = b"another"
    with pytest.raises(
        DataError, match=rf"not the published file .*or download it elsewhere and put it into {cache()}"
    ):
        local_weights(training("torchvision://resnet18", tiny_data, tmp_path))
    assert [found.name for found in cache().iterdir()] == [f"{path[1:]}.wrong"]


def test_a_connection_that_is_cut_is_gone_on_with(site, state, tiny_data, tmp_path):
    site.cuts = [1000, 2000]
    cfg = training("torchvision://resnet18", tiny_data, tmp_path)
    local_weights(cfg)
    assert [wanted for _, wanted in site.asked] == [None, "bytes=1000-", "bytes=3000-"]
    assert same(torch.load(init(cfg)["checkpoint"], weights_only=True), state)


def test_without_a_network_the_remedy_is_to_bring_the_file(site, state, tiny_data, tmp_path, monkeypatch):
    (path,) = site.files
    address = f"http://127.0.0.1:9{path}"
    with pytest.raises(DataError) as caught:
        local_weights(training(address, tiny_data, tmp_path))
    assert str(caught.value) == (
        f"{address}: no connection (ConnectionError); try again later, or download it elsewhere and put it into "
        f"{cache()}"
    )
    (cache() / path[1:]).write_bytes(site.files[path])
    local_weights(training(address, tiny_data, tmp_path))


@pytest.mark.parametrize("kind", ["file", "address", "pickle"])
def test_code_in_pretrained_weights_is_not_run(site, state, tiny_data, tmp_path, kind):
    """Refused in a sentence before the training, and by mmengine's own reader of files."""
    target = tmp_path / "made"
    content = {"state_dict": state, "meta": Payload(target)}
    evil = pickle.dumps(content, protocol=2) if kind == "pickle" else saved(content)
    source, place = str(tmp_path / "evil.pth"), tmp_path / "evil.pth"
    if kind == "address":
        site.files[f"/{named(evil)}"] = evil
        source, place = f"{site.address}/{named(evil)}", cache() / named(evil)
    else:
        place.write_bytes(evil)
    with pytest.raises(CheckpointError) as caught:
        local_weights(training(source, tiny_data, tmp_path))
    assert str(caught.value).startswith(f"{place}: refused, no plain weights")
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(place), map_location="cpu", logger="silent")
    assert not target.exists()
    # it would have been
    if kind == "pickle":
        pickle.loads(evil)
    else:
        torch.load(place, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize(
    ("rank", "local", "order"),
    [
        (0, "0", ["fetch", "barrier", "barrier", "barrier"]),
        (8, "0", ["barrier", "fetch", "barrier", "barrier"]),
        (9, "1", ["barrier", "barrier", "fetch", "barrier"]),
    ],
)
def test_of_many_processes_one_of_a_machine_fetches_first(monkeypatch, tmp_path, rank, local, order):
    done = []
    monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setattr(pretrained, "is_main_process", lambda: rank == 0)
    monkeypatch.setattr(pretrained, "barrier", lambda: done.append("barrier"))
    monkeypatch.setattr(pretrained, "fetch", lambda remote, folder: done.append("fetch") or tmp_path / remote.name)
    monkeypatch.setattr(pretrained, "load_state", lambda path: None)
    cfg = Config({"model": {"init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet50"}}})
    local_weights(cfg)
    assert done == order
    assert cfg.model.init_cfg.checkpoint == str(tmp_path / "resnet50-0676ba61.pth")
