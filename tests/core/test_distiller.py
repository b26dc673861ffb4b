"""The distiller by itself: who gets a gradient, who is saved, how a student starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from support.worlds import WITH_ADAPTERS, light_content, mini_settings, same

from benchmark.experiment.config import detector_config, model_dict, training_config
from benchmark.experiment.settings import Job, Run, parse
from pgd.checkpoint import export, load_state
from pgd.distiller import Distiller
from pgd.methods import METHODS

#: mmdet's own heads use what mmdet deprecates
pytestmark = [pytest.mark.filterwarnings("ignore:DeprecationWarning. .num_anchors"), pytest.mark.slow]
CASES = {
    "none": Run(),
    "inherit": Run(inherit="head+neck"),
    **{m: Run(m, settings=mini_settings(m)) for m in sorted(METHODS.module_dict)},
    "adapted": Run("fitnet", settings={"adapter": True}),
    "on_towers": Run("fitnet", settings={"place": "towers"}),
    "adapted_pgd": Run("pgd", settings={"adapter": True}),
}


@pytest.fixture(scope="module")
def params():
    init_default_scope("mmdet")
    return parse(light_content())


@pytest.fixture(scope="module")
def teacher_file(params, tiny_data, tmp_path_factory) -> Path:
    """Weights of a teacher that was never trained."""
    set_random_seed(99)
    model = MODELS.build(model_dict(detector_config(params.pairs["gfl"].teacher), len(tiny_data.classes)))
    model.init_weights()
    path = tmp_path_factory.mktemp("random") / "teacher.pth"
    export(model, path)
    return path


@pytest.fixture(scope="module")
def batch(params, tiny_data) -> dict:
    cfg = training_config(params.teacher("gfl"), tiny_data, None, Path("w"))
    return next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))


@pytest.fixture
def build(params, tiny_data, teacher_file):
    """Build the model of a run as a Runner would."""

    def built(run: Run, seed: int = 0, **changes) -> Distiller:
        cfg = training_config(Job("x", seed, "gfl", params.pairs["gfl"], run), tiny_data, teacher_file, Path("w"))
        cfg.model.update(changes)
        set_random_seed(seed)
        model = MODELS.build(cfg.model)
        model.init_weights()
        return model.train()

    return built


def losses_of(model: Distiller, batch: dict) -> dict:
    return model(**model.data_preprocessor(batch, True), mode="loss")


@pytest.mark.parametrize("name", ["none", "pgd", "fgd", "crosskd", "mgd"])
def test_where_channels_lie_changes_rounding_alone(build, batch, name):
    last, first = (build(CASES[name], channels_last=there) for there in (True, False))
    kernels = [p for p in last.student.parameters() if p.dim() == 4 and p.size(2) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    found = []
    for model in (last, first):
        torch.manual_seed(0)
        found.append(losses_of(model, batch))
    ours, theirs = ({k: torch.stack(v).sum() if isinstance(v, list) else v for k, v in one.items()} for one in found)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients(build, batch, name):
    model = build(CASES[name])
    # without pretrained weights mmdet starts these at zero, and frozen as they are nothing would pass them
    for norm in (p for k, p in model.named_parameters() if k.endswith("bn2.weight")):
        norm.data.fill_(1)
    total, _ = model.parse_losses(losses_of(model, batch))
    assert torch.isfinite(total)
    total.backward()
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    frozen = [k for k, p in model.named_parameters() if not p.requires_grad]
    assert not [k for k, p in trained.items() if p.grad is None or not p.grad.isfinite().all()]
    assert frozen, "stem, first stage and norms"
    assert all(k.startswith("student.backbone.") for k in frozen), "stem, first stage and norms"
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    still = [k for k, p in trained.items() if k.startswith("student.") and not p.grad.any()]
    assert all(".scales." in k for k in still), "only a level without an object has nothing to learn"
    own = [p for k, p in trained.items() if k.startswith("method.")]
    assert bool(own) == (name in (*WITH_ADAPTERS, "adapted", "adapted_pgd"))
    if own:
        assert sum(bool(p.grad.any()) for p in own) >= min(5, len(own)), "every level's adapter learns"
    if CASES[name].needs_teacher:
        assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
        ours = {id(p) for p in model.parameters()}
        assert not any(id(p) in ours for p in model.teacher.parameters())


@pytest.mark.parametrize("name", sorted(METHODS.module_dict))
def test_the_teachers_lesson_reaches_the_student(build, batch, name):
    """The method's terms alone move the student."""
    model = build(CASES[name])
    losses = losses_of(model, batch)
    terms = [v for k, v in losses.items() if k.startswith(f"loss_{name.removesuffix('_released')}")]
    assert terms
    assert all(t.ndim == 0 and t.item() > 0 for t in terms)
    sum(terms).backward()
    moved = [k for k, p in model.student.named_parameters() if p.grad is not None and p.grad.any()]
    assert any(k.startswith("neck.") for k in moved)
    assert any(k.startswith("backbone.layer4") for k in moved)


@pytest.mark.parametrize("name", CASES)
def test_a_student_starts_as_it_would_alone(build, name):
    alone = build(CASES["none"]).student.state_dict()
    state = build(CASES[name]).student.state_dict()
    taken = CASES[name].inherit != "none"
    differing = {k for k in alone if not torch.equal(alone[k], state[k])}
    assert bool(differing) == taken
    assert not any(k.startswith("backbone.") for k in differing)
    assert not same(build(CASES[name], seed=1).student.state_dict(), state)


def test_inheriting_takes_the_teachers_neck_and_head(build, teacher_file):
    model, state = build(CASES["inherit"]), load_state(teacher_file)
    report = model.inherit_report
    own = model.student.state_dict()
    rest = [k for k in own if not k.startswith("backbone.")]
    assert sorted(report.copied) == sorted(rest)
    assert not report.skipped
    assert all(torch.equal(own[k], state[k]) for k in rest)
    # copied, not shared
    model.student.bbox_head.gfl_cls.weight.data.zero_()
    assert model.teacher.bbox_head.gfl_cls.weight.any()


def test_the_teacher_is_no_part(build, teacher_file):
    model = build(CASES["fgd"])
    assert same(dict(model.teacher.state_dict()), load_state(teacher_file))
    assert {k.split(".")[0] for k in model.state_dict()} == {"student", "method"}
    assert model.training
    assert not model.teacher.training
    assert not any(m.training for m in model.teacher.modules())
    model.double()
    assert model.teacher.neck.fpn_convs[0].conv.weight.dtype == torch.float64, "casts reach it"


@pytest.mark.parametrize("name", ["pgd", "ld"])
def test_recording_leaves_nothing_behind(build, batch, name):
    model = build(CASES[name])
    plain = {k: v for k, v in losses_of(model, batch).items() if not k.startswith(f"loss_{name}")}
    for tape in model._tapes:
        assert tape.neck is tape.outputs is tape.targets is None
        assert tape.towers == ([], [])
    assert "get_targets" not in vars(model.student.bbox_head)
    # the student's own losses are those of the student alone
    alone = losses_of(build(CASES["none"]), batch)
    for key, value in alone.items():
        torch.testing.assert_close(plain[key], value, rtol=0, atol=0)


def test_prediction_is_the_students(build, batch):
    model = build(CASES["pgd"]).eval()
    data = model.data_preprocessor(batch, False)
    with torch.no_grad():
        ours = model.predict(data["inputs"], data["data_samples"], rescale=False)
        own = [(p.pred_instances.bboxes.clone(), p.pred_instances.scores.clone()) for p in ours]
        theirs = model.student.predict(data["inputs"], data["data_samples"], rescale=False)
    assert len(own) == 2
    for (boxes, scores), sample in zip(own, theirs, strict=True):
        assert torch.equal(boxes, sample.pred_instances.bboxes)
        assert torch.equal(scores, sample.pred_instances.scores)


@pytest.mark.parametrize("wrong", [{"method": {"type": "pgd"}}, {"inherit": "head+neck"}, {"inherit": "everything"}])
def test_what_cannot_be_built(params, wrong):
    student = model_dict(detector_config(params.pairs["gfl"].student), 10)
    said = "is not one of none, head" if wrong.get("inherit") == "everything" else "needs a teacher; give `teacher`"
    with pytest.raises(ValueError, match=said):
        Distiller(student=student, **wrong)
