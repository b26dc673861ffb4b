"""Checkpoints of others: whose names are read behind which prefix, what is refused, what a backbone must have taken."""

from __future__ import annotations

import base64
import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from support.detectors import model_config
from torch import Tensor, nn

import pgd.plugin  # noqa: F401  registers what weights_only=True may read
from benchmark.probe.subjects import class_names
from pgd.checkpoint import KEYS, PREFIXES, CheckpointError, load_state, load_strict, require_pretrained, unwrapped
from pgd.distiller import Distiller


class Net(nn.Module):
    """A detector's outline: parts named as mmdet names them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.neck, self.bbox_head = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1)


def behind(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def loaded(path: Path, content: object) -> dict[str, Tensor]:
    """What a fresh model holds after ``content`` was saved and loaded strictly."""
    torch.save(content, path)
    model = Net()
    load_strict(model, path, "teacher")
    return dict(model.state_dict())


def refusal(path: Path, content: object) -> str:
    """The one sentence by which a file is refused; the model keeps its weights."""
    torch.save(content, path)
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_strict(model, path, "teacher")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("prefix", [*PREFIXES, "module.student.", "module.architecture.model.", "module.module."])
@pytest.mark.parametrize("under", ["state_dict", None])
def test_prefixes_of_wrappers_are_read(tmp_path, prefix, under):
    """Data parallel, distillers of others, averages of weights: one behind the other, too."""
    own = Net().state_dict()
    state = behind(prefix, own)
    assert same(loaded(tmp_path / "a.pth", {under: state} if under else state), own)


def test_the_prefixes_are_known():
    assert set(PREFIXES) == {"module.", "student.", "teacher.", "architecture.", "detector.", "model."}


def test_what_stands_beside_the_prefix_is_left_out(tmp_path):
    """A distiller's checkpoint holds adapters and maybe its teacher: the student is what is meant."""
    own, other = Net().state_dict(), Net().state_dict()
    state = {**behind("method.adapter.", other), **behind("teacher.", other), **behind("student.", own)}
    assert same(loaded(tmp_path / "a.pth", state), own)


def test_own_names_are_never_searched_behind_a_prefix():
    own, other = Net().state_dict(), Net().state_dict()
    state = {**own, **behind("student.", other)}
    assert unwrapped(state, own) is state


def test_the_copy_of_mmdet_2s_ema_beside_the_weights_is_left_out(tmp_path):
    """Its hook writes it as buffers under flat names; alone it is no state dict of the model."""
    own, other = Net().state_dict(), Net().state_dict()
    copy = {f"ema_{name.replace('.', '_')}": value for name, value in other.items()}
    assert same(loaded(tmp_path / "a.pth", {**own, **copy}), own)
    assert "(9 entries missing, 0 unknown" in refusal(tmp_path / "b.pth", copy)


@pytest.mark.parametrize("key", KEYS)
def test_a_state_dict_under_a_common_key(tmp_path, key):
    own = Net().state_dict()
    assert same(loaded(tmp_path / "a.pth", {key: own, "epoch": 3}), own)


def test_a_state_dict_under_another_key_is_refused(tmp_path):
    assert "no state dict of tensors in it" in refusal(tmp_path / "a.pth", {"weights": Net().state_dict()})


def test_of_mmdet_2(tmp_path):
    """Weights as ever; what else its runner wrote is read past, and class names stand in capitals."""
    own = OrderedDict(Net().state_dict())
    own._metadata = OrderedDict({"": {"version": 1}})
    meta = {"mmdet_version": "2.28.2", "CLASSES": ("a", "b", "c"), "PALETTE": [(1, 2, 3)], "epoch": 12, "hook_msgs": {}}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.01, "params": [0]}]}
    path = tmp_path / "epoch_12.pth"
    assert same(loaded(path, {"meta": meta, "state_dict": own, "optimizer": optimizer}), dict(own))
    truth = SimpleNamespace(dataset={"categories": [{"id": k, "name": name} for k, name in enumerate("abc")]})
    subject = SimpleNamespace(classes=None, checkpoint=path, annotations="a.json", cfg=None, config="c.py")
    assert class_names(subject, truth, 3) == ("a", "b", "c")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("entry", ["backbone.weight", "neck.running_var"])
def test_weights_that_are_not_finite_are_refused(tmp_path, entry, value):
    state = Net().state_dict()
    state[entry].view(-1)[-1] = value
    assert f"{entry} of the teacher is not finite; it was spoilt" in refusal(tmp_path / "a.pth", {"state_dict": state})


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _evil(target: Path) -> list[Call]:
    code = f"import pathlib; pathlib.Path({str(target)!r}).touch()"
    return [
        Call(exec, code),
        Call(eval, f"__import__('os').mkdir({str(target)!r})"),
        Call(__import__, "os"),
        Call(torch.load, str(target)),
        Call(np.load, str(target)),
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_pickle_that_calls_is_refused(tmp_path, number, form):
    """In torch's two forms and in a bare pickle, beside sound weights; nothing of it is run."""
    path, target = tmp_path / "evil.pth", tmp_path / "made"
    content = {"state_dict": Net().state_dict(), "meta": _evil(target)[number]}
    if form == "plain":
        path.write_bytes(pickle.dumps({"meta": _evil(target)[number]}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match=r"refused, no plain weights|unreadable"):
        load_state(path)
    assert not target.exists()


def test_a_zip_whose_pickle_was_exchanged_is_refused(tmp_path):
    """Sound tensors, and in place of their names a pickle that calls."""
    path, target = tmp_path / "a.pth", tmp_path / "made"
    torch.save(Net().state_dict(), path)
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in parts.items():
            evil = pickle.dumps(Call(exec, f"open({str(target)!r}, 'w')"), protocol=2)
            new.writestr(name, evil if name.endswith("data.pkl") else data)
    with pytest.raises(CheckpointError, match="refused, no plain weights"):
        load_state(path)
    assert not target.exists()


#: A checkpoint in which numpy 1.26.4 pickled a history and a figure, by torch 2.14.1 and mmengine 0.10.7:
#:   history = HistoryBuffer(log_history=[2.0, 4.0], count_history=[1, 1])
#:   content = {"state_dict": {"w": torch.ones(2)}, "log": history, "meta": {"mAP": numpy.float64(0.5)}}
#:   torch.save(content, file, _use_new_zipfile_serialization=False)
#:   base64.b85encode(zlib.compress(file.getvalue(), 9))
OF_NUMPY_1 = (
    b"c-nPS+iuf95Otii1w*0bUasYyaxtZ(5TMYslmaykt^48^v~t$l*vPSS>@`rNNadk{@(n!j$baxPd;$^@jO{c+0#>ruGdnxy_{_|v`bqPDeqQ"
    b"`B{_5+>n7*kle=pLz1Ep+@D2mdKLK*VVXRk#RdtrbA1z5v$;(Jp1f{DQK>;URVOCzV;XbTp5??jAZ2c@z#K+f0=BZ&b+wTfhUfyAIuvPx-=F"
    b"lb`PC?&}bW|}0HwiL|qxJ01?)hdwh4T@Zb5qEW#NY9To7KujU`3{pJh{K4zp3(@fYz<`z!pLq44CGg|ML)FVTJF>^XzinzyOpWw>U8DKWaZX"
    b"mwThvP8*eArWvF$D-K&OTs9VsC!WQ;ybCSRpT#^E@_9AjbB%B2zsA2DfiD8L-Cicf!4nJ&SgtuBEXnKLr$)vrhyI#s_gEf-%brES#b8|koFg"
    b"o!b2Rb;I3(&IPGN0~C7l)Q=^ZONRFL@cIV!bpt%!8!W-q3j%3B8s0(zBz;-biKP#8E~`O72J=r3FrYilc_Ig=3uY&=EY=M38=H7|S$n;J7uI"
    b"{(&vM;3iIVani)84>)b&OxY-;a*X#9I%%OboV8SnU$5fa_Qwx6Z{kAPC}z24aIs#mFa4sGy$nU-Qe)d4%etz!YWX%&!)2Gy$|fcxt~9dx5XB"
    b"^r{r|n{9&t1B*IZ(B-Gts_bi>U_cvVcMByO6RA`<T3@VEN#g&zLSj!FtYZQ{1XorZOw*MkJ@@tC!QbVDabwS&9mti&xZz&*}b+JGb#V_H*Cy"
    b"re?jcSrjnGhI9|@i4dTx0rSNr)1T-m@_e-H7rk}NYGq7$|C;sEOhbM#9}rrEkT3!Bn#=APrG<#Vkt=)J)g8;bnrZfnOni~e;Os`wr>;Rx_g0"
    b"C+1;<nw=c7Jk;<`RVzmp?#9EwA=SwL6nwx^HtNpv1v+462bZko("
)


def test_of_numpy_1(tmp_path):
    data = zlib.decompress(base64.b85decode(OF_NUMPY_1))
    assert b"numpy.core.multiarray" in data
    assert b"numpy._core" not in data
    path = tmp_path / "a.pth"
    path.write_bytes(data)
    assert load_state(path)["w"].tolist() == [1, 1]
    content = torch.load(io.BytesIO(data), weights_only=True)
    assert content["log"].mean(2) == 3
    assert content["log"].current() == 4
    assert content["meta"]["mAP"] == 0.5


@pytest.fixture(scope="module")
def backbone() -> dict:
    init_default_scope("mmdet")
    return {k: v for k, v in model_config("gfl")["backbone"].items() if k != "init_cfg"}


def initialised(config: dict, checkpoint: Path, **init: str) -> nn.Module:
    """A backbone after mmengine has taken over what fits of a file; what does not, it passes over."""
    model = MODELS.build({**config, "init_cfg": {"type": "Pretrained", "checkpoint": str(checkpoint), **init}})
    model.init_weights()
    return model


def other_names(state: dict) -> dict:
    return behind("features.", state)


def other_shapes(state: dict) -> dict:
    return {name: torch.cat((value, value)) if value.dim() else value for name, value in state.items()}


@pytest.mark.parametrize(
    ("prefix", "init"),
    [
        ("", {}),
        ("backbone.", {"prefix": "backbone"}),
        ("backbone.", {"prefix": "backbone."}),
        ("module.", {}),
    ],
)
def test_a_backbone_that_was_loaded(tmp_path, backbone, prefix, init):
    """Also out of a whole detector."""
    state = MODELS.build(backbone).state_dict()
    torch.save({"state_dict": behind(prefix, state)}, tmp_path / "a.pth")
    model = initialised(backbone, tmp_path / "a.pth", **init)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    report = require_pretrained(model)
    assert set(report.copied) == {name for name, value in state.items() if value.is_floating_point()}
    assert not report.skipped


def test_parts_that_pretrained_weights_do_not_know_are_reported(tmp_path, backbone):
    """As where deformable convolutions stand on an ordinary backbone's weights."""
    state = MODELS.build(backbone).state_dict()
    gone = next(name for name, value in state.items() if value.is_floating_point())
    torch.save({name: value for name, value in state.items() if name != gone}, tmp_path / "a.pth")
    report = require_pretrained(initialised(backbone, tmp_path / "a.pth"))
    assert report.skipped == {gone: "the pretrained weights have no such entry"}


def test_one_entry_of_another_shape_is_an_error(tmp_path, backbone):
    state = MODELS.build(backbone).state_dict()
    wide = next(name for name, value in state.items() if value.dim() == 4)
    torch.save({**state, wide: torch.cat((state[wide], state[wide]))}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=f"1 of the backbone's .* {wide}"):
        require_pretrained(initialised(backbone, tmp_path / "a.pth"))


@pytest.mark.parametrize("spoil", [other_names, other_shapes])
def test_a_backbone_that_was_not_loaded(tmp_path, backbone, spoil):
    path = tmp_path / "a.pth"
    torch.save(spoil(MODELS.build(backbone).state_dict()), path)
    with pytest.raises(CheckpointError) as caught:
        require_pretrained(initialised(backbone, path))
    assert str(caught.value).startswith(f"{path}: ")
    assert " entries are not from this file (first: " in str(caught.value)
    assert str(caught.value).endswith("); give weights of this architecture")


def test_a_backbone_without_pretrained_weights_is_let_be(backbone):
    assert require_pretrained(MODELS.build(backbone)) is None


@pytest.mark.filterwarnings("ignore:DeprecationWarning")
def test_a_student_whose_backbone_did_not_load_is_an_error(tmp_path, backbone):
    """Where a training would start from nothing and not say so."""
    path = tmp_path / "a.pth"
    torch.save(other_names(MODELS.build(backbone).state_dict()), path)
    init = {"type": "Pretrained", "checkpoint": str(path)}
    student = {**model_config("gfl"), "backbone": {**backbone, "init_cfg": init}}
    with pytest.raises(CheckpointError, match="give weights of this architecture"):
        Distiller(student=student).init_weights()
