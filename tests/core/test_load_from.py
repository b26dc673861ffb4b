"""What mmengine's Runner loads into a Distiller: its own checkpoints, and those of the student alone."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from support.detectors import BOXES, LABELS, SIZE, detector, model_config, sample
from support.served import settings_at_once
from support.worlds import same
from torch import Tensor
from torch.utils.data import DataLoader

from pgd.checkpoint import CheckpointError, export, load_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:DeprecationWarning. .num_anchors"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore:.*instance named of visualizer has been created"),
]
#: mmengine keeps loggers by the names of experiments
NUMBERS = itertools.count()
PREPROCESSOR = {"type": "DetDataPreprocessor", "mean": [120.0] * 3, "std": [60.0] * 3, "pad_size_divisor": 32}


class Start(Hook):
    """Remembers what a training starts from."""

    state: dict[str, Tensor] | None = None

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if self.state is None:
            self.step, self.state = runner.iter, {k: v.clone() for k, v in runner.model.state_dict().items()}


def train(folder: Path, model: dict, steps: int = 1, hooks: tuple = (), **settings) -> tuple[Start, Runner]:
    """Train on two images by a Runner, which writes a checkpoint after each step."""
    pixels = torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = [sample(boxes, labels) for boxes, labels in zip(BOXES, LABELS, strict=True)]
    data = [{"inputs": image, "data_samples": truth} for image, truth in zip(pixels, samples, strict=True)]
    runner = Runner(
        model={**copy.deepcopy(model), "data_preprocessor": PREPROCESSOR},
        work_dir=str(folder),
        train_dataloader=DataLoader(data, batch_size=2, collate_fn=pseudo_collate),
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": steps},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 1}},
        custom_hooks=list(hooks),
        default_scope="mmdet",
        randomness={"seed": 0},
        experiment_name=f"load-{next(NUMBERS)}",
        **settings,
    )
    start = Start()
    runner.register_hook(start)
    runner.train()
    return start, runner


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a teacher and a student, neither of them trained."""
    folder = tmp_path_factory.mktemp("load")
    for seed, who in enumerate(("teacher", "student")):
        export(detector("gfl", seed), folder / f"{who}.pth")
    return folder


@pytest.fixture(scope="module")
def distiller(place) -> dict:
    """Of a method with parameters of its own, and a student that inherits."""
    student = model_config("gfl")
    return {
        "type": "Distiller",
        "student": student,
        "teacher": student,
        "teacher_checkpoint": str(place / "teacher.pth"),
        "method": {"type": "fgd", **settings_at_once("fgd", "gfl")},
        "inherit": "head+neck",
    }


def part(state: dict, name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def test_a_plain_student_takes_the_place_of_what_was_inherited(place, distiller, tmp_path):
    plain, _ = train(tmp_path / "a", distiller)
    loaded, _ = train(tmp_path / "b", distiller, load_from=str(place / "student.pth"))
    file = load_state(place / "student.pth")
    assert same(part(loaded.state, "student"), file)
    assert not same(part(plain.state, "student"), file)
    # the rest starts as it would
    assert part(loaded.state, "method")
    assert same(part(loaded.state, "method"), part(plain.state, "method"))


def test_a_training_of_mmdets_is_loaded(distiller, tmp_path):
    """A whole checkpoint of the Runner's: with optimiser and versions of modules."""
    _, runner = train(tmp_path / "plain", model_config("gfl"))
    start, _ = train(tmp_path / "a", distiller, load_from=str(tmp_path / "plain" / "iter_1.pth"))
    assert start.step == 0
    assert same(part(start.state, "student"), dict(runner.model.state_dict()))


def test_what_has_another_shape_keeps_its_own_start(place, distiller, tmp_path):
    """A student of other classes: all but the layer that tells them."""
    file = load_state(place / "student.pth")
    other = {k: torch.cat((v, v)) if k.startswith("bbox_head.gfl_cls.") else v for k, v in file.items()}
    torch.save({"state_dict": other}, tmp_path / "other.pth")
    plain, _ = train(tmp_path / "a", distiller)
    loaded, _ = train(tmp_path / "b", distiller, load_from=str(tmp_path / "other.pth"))
    for name, value in part(loaded.state, "student").items():
        kept = name.startswith("bbox_head.gfl_cls.")
        assert torch.equal(value, plain.state[f"student.{name}"] if kept else file[name])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"state_dict": {"features.0.weight": torch.ones(8, 3, 3, 3)}}, r"features.0.weight \(8, 3, 3, 3\)"),
        ({"state_dict": {"student.features.weight": torch.ones(2)}}, r"student.features.weight \(2,\)"),
        ({"state_dict": {"backbone.conv1.weight": torch.ones(1, 3, 7, 7)}}, r"backbone.conv1.weight \(1, 3, 7, 7\)"),
        ({"optimizer": {"state": {}, "param_groups": []}}, r"optimizer \(\)"),
        ({"state_dict": {}}, "nothing"),
    ],
    ids=["other names", "other names behind ours", "other shapes", "optimiser alone", "empty"],
)
def test_a_checkpoint_of_which_nothing_fits_is_refused(distiller, tmp_path, content, told):
    torch.save(content, tmp_path / "a.pth")
    said = rf"nothing in this checkpoint fits \(it begins with {told}, the student with backbone.conv1.weight "
    with pytest.raises(CheckpointError, match=said) as caught:
        train(tmp_path / "a", distiller, load_from=str(tmp_path / "a.pth"))
    assert str(caught.value).endswith("); give one of this Distiller or of its student alone")


def test_the_distillers_own_checkpoint_is_loaded_whole(distiller, tmp_path):
    _, runner = train(tmp_path / "a", distiller)
    start, _ = train(tmp_path / "b", distiller, load_from=str(tmp_path / "a" / "iter_1.pth"))
    assert start.step == 0
    assert same(start.state, dict(runner.model.state_dict()))


@pytest.mark.long
def test_a_training_is_resumed_as_if_never_interrupted(distiller, tmp_path):
    _, whole = train(tmp_path / "a", distiller, steps=3)
    train(tmp_path / "b", distiller, steps=1)
    start, resumed = train(tmp_path / "b", distiller, steps=3, resume=True)
    assert start.step == 1
    assert same(start.state, load_state(tmp_path / "b" / "iter_1.pth"))
    assert same(dict(resumed.model.state_dict()), dict(whole.model.state_dict()))


def test_the_average_of_weights_starts_from_the_plain_student_and_is_resumed(place, distiller, tmp_path):
    """mmengine's EMA holds a copy of the whole model, behind a prefix of its own."""
    hooks = ({"type": "EMAHook", "momentum": 0.5},)
    train(tmp_path / "a", distiller, hooks=hooks, load_from=str(place / "student.pth"))
    saved = torch.load(tmp_path / "a" / "iter_1.pth", weights_only=True)
    # it has seen one step, and the first is a copy
    trained, average = (
        part(saved[key], name) for key, name in (("ema_state_dict", "module"), ("state_dict", "student"))
    )
    assert average
    start, _ = train(tmp_path / "a", distiller, steps=2, hooks=hooks, resume=True)
    assert start.step == 1
    assert same(start.state, trained)


def test_weights_are_loaded_by_torch_alone(place, distiller, tmp_path):
    """Without a Runner, and behind a wrapper's prefix."""
    _, runner = train(tmp_path / "a", distiller)
    file = load_state(place / "student.pth")
    assert not runner.model.load_state_dict(file, strict=False).unexpected_keys
    assert same(dict(runner.model.student.state_dict()), file)
    wrapped = torch.nn.ModuleDict({"module": runner.model})
    other = {f"module.{name}": torch.zeros_like(value) for name, value in file.items()}
    wrapped.load_state_dict(other, strict=False)
    assert same(dict(runner.model.student.state_dict()), part(other, "module"))
