"""Images are as large in testing as in training: the setting that sees to it, and what is refused without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmdet.models import DetDataPreprocessor
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from support.coco_tree import COUNTS, NAMES, annotations_of, edit, image_of, write_image, write_tree
from support.worlds import World, light_content

from benchmark.experiment.budget import Images, images_of, row_of
from benchmark.experiment.config import DatasetInfo, detector_config, training_config, training_digest
from benchmark.experiment.evaluation import evaluation_config
from benchmark.experiment.image_size import check_image_sizes, scaled, set_image_size
from benchmark.experiment.settings import TEACHER, Dataset, Detector, Job, Pair, Run, SettingsError, Teacher, parse
from benchmark.experiment.workspace import HERE, Workspace
from benchmark.prepare import prepare
from benchmark.probe.subjects import dataset_of, subject_of_pair
from benchmark.training.stored import REPEATABLE

pytestmark = pytest.mark.filterwarnings("ignore:DeprecationWarning. .num_anchors")
#: configs of each family: with and without a size of their own, of one and of many sizes
FAMILIES = [
    "mini/gfl_r18",
    "mini/ddod_crowd_r34",
    "real/gfl_r18",
    "real/gfl_lite2",
    "paper/gfl_r50_1x",
    "paper/gfl_r101_3x",
    "paper/crowdhuman_ddod_r50_1x",
    "paper/crowdhuman_ddod_r101_3x",
]
#: of a photograph
WIDTH, HEIGHT = 640, 480
TOLD = "should be pixels: a positive whole number for the longer side, or a list of two, the most for either side"


def job_of(name: str, **settings: object) -> Job:
    config = f"benchmark/configs/{name}.py"
    return Job("student", 0, "x", Pair(Teacher(config), Detector(config, **settings), "mine"), Run(pair="x"))


def pipelines(cfg: Config) -> list[list[dict]]:
    return [[dict(step) for step in cfg[f"{part}_dataloader"].dataset.pipeline] for part in ("train", "val")]


def write_annotations(path: Path, *sizes: tuple[int, int]) -> Path:
    images = [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes)]
    path.write_text(json.dumps({"images": images}))
    return path


@pytest.fixture
def photographs(tmp_path) -> DatasetInfo:
    """Of one size; nothing but their annotations is there."""
    paths = [str(write_annotations(tmp_path / f"{split}.json", (WIDTH, HEIGHT))) for split in NAMES]
    return DatasetInfo("mine", ["a"], "train", paths[0], "val", paths[1], [1024, 9216], "digest")


def settings_of(**entries: object) -> Dataset:
    return parse(light_content("mine") | {"datasets": {"mine": {"kind": "coco", "root": "x", **entries}}}).dataset(
        "mine"
    )


def test_the_setting():
    assert settings_of().image_size is None
    assert settings_of(image_size=None).image_size is None
    assert settings_of(image_size=512).image_size == (512, 512)
    assert settings_of(image_size=[640, 480]).image_size == (640, 480)


BAD = ["640x480", "640", -3, 0, 2.5, True, [640], [640, 480, 3], [640, "480"], [640, -1], [640, None], {"w": 640}]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_sizes_that_are_none(value):
    with pytest.raises(SettingsError) as caught:
        settings_of(image_size=value)
    assert str(caught.value) == f"datasets.mine.image_size: {value!r} {TOLD}"


def test_a_misspelt_key():
    with pytest.raises(SettingsError, match=r"^datasets\.mine\.image_sise: unknown key; did you mean 'image_size'\?$"):
        settings_of(image_sise=512)


@pytest.mark.parametrize("kind", ["minicoco", "midicoco", "minicrowd"])
def test_drawn_sets_have_a_size_of_their_own(kind):
    with pytest.raises(SettingsError) as caught:
        parse(light_content() | {"datasets": {"mine": {"kind": kind, "image_size": 320}}})
    assert str(caught.value) == (
        f"datasets.mine.image_size: only sets of kind 'coco' and 'crowdhuman' have this setting, not '{kind}'"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_config_scales_alike_in_training_and_testing(name, photographs, tmp_path):
    sized = replace(photographs, image_size=[320, 240])
    cfg = training_config(job_of(name), sized, None, tmp_path)
    before = pipelines(detector_config(job_of(name).detector))
    train, test = pipelines(cfg)
    resize = {"type": "Resize", "scale": (320, 240), "keep_ratio": True}
    load = ["LoadImageOnce" if name.startswith(("mini", "real")) else "LoadImageFromFile", "LoadAnnotations"]
    assert [step["type"] for step in train] == [*load, "Resize", "RandomFlip", "PackDetInputs"]
    assert [step["type"] for step in test] == ["LoadImageFromFile", "Resize", "PackDetInputs"]
    assert train[2] == test[1] == resize
    for old, new in zip(before, (train, test), strict=True):
        assert [step for step in old if "Resize" not in step["type"]] == [s for s in new if s["type"] != "Resize"]
    assert {step["type"] for step in train} <= REPEATABLE, "what the teacher sees can be stored"
    evaluated = evaluation_config(job_of(name), sized, tmp_path / "detections.json")
    assert [dict(step) for step in evaluated.test_dataloader.dataset.pipeline] == test


def test_it_is_part_of_what_a_result_depends_on(photographs):
    sizes = (None, [256, 256], [320, 320])
    digests = [training_digest(job_of("real/gfl_r18"), replace(photographs, image_size=size)) for size in sizes]
    # 256 is the size of that config
    assert digests[0] == digests[1] != digests[2]


def test_what_a_step_does_besides_stays():
    step = {"type": "RandomResize", "scale": [(1333, 480), (1333, 960)], "keep_ratio": True, "interpolation": "area"}
    own = {"clip_object_border": False, "backend": "pillow"}
    cfg = own_config([step | own], [{"type": "Resize", "scale": (1333, 800), "keep_ratio": True}])
    set_image_size(cfg, "mine", [640, 480])
    (train, test) = ([dict(s) for s in part if s["type"] == "Resize"] for part in pipelines(cfg))
    assert test == [{"type": "Resize", "scale": (640, 480), "keep_ratio": True}]
    assert train == [{**test[0], "interpolation": "area", **own}]


@pytest.mark.parametrize("name", ["nanodet_m_320", "nanodet_plus_m_416"])
def test_detectors_of_stretched_images_go_on_stretching(name):
    cfg = detector_config(Detector(f"benchmark/configs/nanodet/{name}.py"))
    set_image_size(cfg, "mine", [256, 192])
    steps = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    assert steps[1] == {"type": "Resize", "scale": (256, 192), "keep_ratio": False}
    assert [step["type"] for step in steps] == ["LoadImageFromFile", "Resize", "PackDetInputs"]


@pytest.mark.parametrize(
    ("step", "key"),
    [
        ({"type": "CachedMosaic", "img_scale": (640, 640)}, "img_scale"),
        ({"type": "RandomChoice", "transforms": []}, "transforms"),
    ],
    ids=["mosaic", "choice"],
)
def test_steps_with_sizes_of_their_own_are_refused(step, key):
    cfg = own_config([step], [])
    with pytest.raises(SettingsError) as caught:
        set_image_size(cfg, "mine", [640, 480])
    assert str(caught.value) == (
        f"datasets.mine.image_size: the config has a step {step['type']} with sizes of its own ({key}); "
        "take a config without it"
    )
    before = pipelines(cfg)
    set_image_size(cfg, "mine", None)
    assert pipelines(cfg) == before


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (501, 333), (97, 211), (160, 160)])
@pytest.mark.parametrize("scale", [(160, 160), (1333, 800), (240, 320)])
@pytest.mark.parametrize("keep_ratio", [True, False])
def test_sizes_are_those_that_mmdet_gives(size, scale, keep_ratio):
    init_default_scope("mmdet")
    resize = TRANSFORMS.build({"type": "Resize", "scale": scale, "keep_ratio": keep_ratio})
    found = resize({"img": np.zeros((size[1], size[0], 3), np.uint8)})["img"]
    assert scaled(size, scale, keep_ratio) == found.shape[1::-1]


def own_config(train: list[dict], test: list[dict]) -> Config:
    """Somebody's config with these steps between loading and packing."""
    load, pack = {"type": "LoadImageFromFile"}, {"type": "PackDetInputs"}
    whole = [[load, {"type": "LoadAnnotations"}, *train, {"type": "RandomFlip"}, pack], [load, *test, pack]]
    names = ("train_dataloader", "val_dataloader")
    return Config({name: {"dataset": {"pipeline": steps}} for name, steps in zip(names, whole, strict=True)})


def to(*scale: int, keep_ratio: bool = True, **more: object) -> list[dict]:
    return [{"type": "Resize", "scale": scale, "keep_ratio": keep_ratio, **more}]


def random_resize(*scales: tuple[int, int], **more: object) -> list[dict]:
    scale = list(scales) if len(scales) > 1 else scales[0]
    return [{"type": "RandomResize", "scale": scale, "keep_ratio": True, **more}]


CHOICE = [{"type": "RandomChoiceResize", "scales": [(1333, 640), (1333, 800)], "keep_ratio": True}]
FIX_SCALE = [{"type": "FixScaleResize", "scale": (333, 334), "keep_ratio": True}]
CROP = [*to(640, 480), {"type": "RandomCrop", "crop_size": (64, 64)}]
#: training, testing, (width, height) of an image
ALIKE = {
    "neither scales": ([], [], (640, 480)),
    "to its own size": ([], to(160, 160), (160, 120)),
    "the same": (to(1333, 800), to(1333, 800), (640, 480)),
    "the same in other words": (to(640, 480), to(480, 640), (640, 480)),
    "the same for this image": (to(640, 640), to(640, 480), (640, 480)),
    "in the range": (random_resize((1333, 480), (1333, 960)), to(1333, 800), (640, 480)),
    "in the range by ratio": (random_resize((1333, 800), ratio_range=(0.1, 2.0)), to(1333, 800), (640, 480)),
    "at the end of a choice": (CHOICE, to(1333, 800), (640, 480)),
    "off by rounding": (to(333, 333), FIX_SCALE, (640, 479)),
    "nobody can tell": (CROP, to(320, 240), (640, 480)),
    "by a factor": ([{"type": "Resize", "scale_factor": 2.0}], to(320, 240), (640, 480)),
}
#: and the sizes that are told
DIFFERENT = {
    "only tested": ([], to(160, 160), (640, 480), "640 x 480", "160 x 120"),
    "only trained": (to(160, 160), [], (640, 480), "160 x 120", "640 x 480"),
    "one was forgotten": (to(512, 512), to(256, 256), (640, 480), "512 x 384", "256 x 192"),
    "out of the range": (random_resize((640, 480), (640, 480)), to(1333, 800), (640, 480), "640 x 480", "1067 x 800"),
    "out of a choice": (CHOICE, to(1333, 400), (640, 480), "853 x 640 to 1067 x 800", "533 x 400"),
    "stretched": (to(320, 320), to(320, 320, keep_ratio=False), (640, 480), "320 x 240", "320 x 320"),
    "an upright one": (to(320, 320), to(320, 240, keep_ratio=False), (480, 640), "240 x 320", "320 x 240"),
}


@pytest.mark.parametrize("what", ALIKE)
def test_pipelines_of_one_size_are_taken(tmp_path, what):
    train, test, size = ALIKE[what]
    check_image_sizes(own_config(train, test), "mine", [write_annotations(tmp_path / "a.json", size)])


@pytest.mark.parametrize("what", DIFFERENT)
def test_pipelines_of_two_sizes_are_refused(tmp_path, what):
    train, test, size, trained, tested = DIFFERENT[what]
    good, bad = write_annotations(tmp_path / "a.json"), write_annotations(tmp_path / "b.json", size)
    cfg = own_config(train, test)
    check_image_sizes(cfg, "mine", [good])
    with pytest.raises(SettingsError) as caught:
        check_image_sizes(cfg, "mine", [good, bad])
    assert str(caught.value) == (
        f"the config: images of {size[0]} x {size[1]} pixels, as in {bad}, would be trained on at {trained} and tested "
        f"on at {tested}; set datasets.mine.image_size, which acts on both, or correct the pipelines by options"
    )
    set_image_size(cfg, "mine", [320, 240])
    check_image_sizes(cfg, "mine", [good, bad])


def test_a_file_that_changed_is_read_again(tmp_path):
    cfg, path = own_config([], to(160, 160)), write_annotations(tmp_path / "a.json", (160, 160))
    check_image_sizes(cfg, "mine", [path])
    write_annotations(path, (640, 480))
    with pytest.raises(SettingsError, match="images of 640 x 480 pixels"):
        check_image_sizes(cfg, "mine", [path])


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mini/gfl_r18"])
def test_configs_that_are_alike_by_themselves_need_no_annotations(name):
    """COCO's take seconds to read."""
    check_image_sizes(detector_config(job_of(name).detector), "mine", [Path("nowhere.json")])


def test_the_mini_config_takes_its_own_images(tiny_data, tmp_path):
    assert training_config(job_of("mini/gfl_r18"), tiny_data, None, tmp_path)


def test_an_option_for_one_pipeline_alone_is_refused(photographs, tmp_path):
    one = {"train_dataloader.dataset.pipeline.2.scale": [512, 512]}
    both = one | {"val_dataloader.dataset.pipeline.1.scale": [512, 512]}
    assert training_config(job_of("real/gfl_r18", options=both), photographs, None, tmp_path)
    job, said = job_of("real/gfl_r18", options=one), r"^benchmark/configs/real/gfl_r18\.py: .* 512 x 384 .* 256 x 192;"
    with pytest.raises(SettingsError, match=said):
        training_config(job, photographs, None, tmp_path)
    with pytest.raises(SettingsError, match=said):
        evaluation_config(job, photographs, tmp_path / "detections.json")


@pytest.mark.slow
def test_the_cost_goes_with_it():
    """Of images of 4 : 3, padded to 32."""
    job = job_of("mini/gfl_r18", iterations=2)
    own, sized = (row_of(job, Images(10, 10, 8, scale), 1e12).work.forward for scale in (None, (320, 320)))
    assert sized / own == pytest.approx(256 * 320 / 160**2, rel=0.02)
    space = Workspace(Path("nowhere"))
    assert images_of("mine", Dataset("coco", root="x", image_size=[320, 240]), space).scale == (320, 240)


@pytest.fixture
def tree(tmp_path) -> Path:
    """A COCO tree of photographs."""
    root = write_tree(tmp_path / "coco")

    def enlarged(content: dict) -> None:
        for image in content["images"]:
            image.update(width=WIDTH, height=HEIGHT)
        for entry in content["annotations"]:
            entry.update(bbox=[10 * side for side in entry["bbox"]], area=100 * entry["area"])

    for split, count in COUNTS.items():
        edit(annotations_of(root, split), enlarged)
        for number in range(count):
            write_image(image_of(root, number, split), (WIDTH, HEIGHT))
    return root


@pytest.fixture
def settled(tree, tmp_path, monkeypatch) -> Callable[..., tuple[World, object]]:
    """Prepares and plans the photographs for the mini configs; returns the world and its settings."""
    monkeypatch.chdir(tmp_path)

    def settle(**entries: object) -> tuple[World, object]:
        mine = {"kind": "coco", "root": str(tree), **entries}
        content = {"datasets": {"mine": mine}, "pairs": light_content("mine")["pairs"]}
        info = prepare("mine", parse(light_content("mine") | content).dataset("mine"))
        world = World(tmp_path, info)
        return world, world.settle(lambda settings: settings.update(content))

    return settle


def test_it_is_written_down(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = HERE.dataset("mine")
    plain = prepare("mine", Dataset("coco", root=str(tree)))
    assert "image_size" not in json.loads(path.read_text()), "as it was before there was the setting"
    assert DatasetInfo.load("mine") == plain
    sized = prepare("mine", Dataset("coco", root=str(tree), image_size=512))
    assert json.loads(path.read_text())["image_size"] == [512, 512]
    assert DatasetInfo.load("mine") == sized != plain
    assert sized.digest != plain.digest, "a training of another size is refused, and features are not shared"


def test_photographs_for_a_mini_config_are_refused_before_anything_trains(settled, tree):
    with pytest.raises(SettingsError) as caught:
        settled()
    assert str(caught.value) == (
        f"benchmark/configs/mini/gfl_r34.py: images of {WIDTH} x {HEIGHT} pixels, as in {annotations_of(tree)}, would "
        f"be trained on at {WIDTH} x {HEIGHT} and tested on at 160 x 120; set datasets.mine.image_size, which acts on "
        "both, or correct the pipelines by options"
    )
    assert not (HERE.work / "plan").exists()


@pytest.mark.slow
def test_a_detector_is_trained_and_tested_on_images_of_that_size(settled, monkeypatch):
    world, params = settled(image_size=[128, 128])
    seen: dict[bool, set] = {True: set(), False: set()}
    forward = DetDataPreprocessor.forward

    def watched(self, data: dict, training: bool = False) -> dict:
        seen[training] |= {sample.img_shape for sample in data["data_samples"]}
        return forward(self, data, training)

    monkeypatch.setattr(DetDataPreprocessor, "forward", watched)
    world.train(params, TEACHER)
    record = world.evaluate(params, TEACHER)
    assert seen == {True: {(96, 128)}, False: {(96, 128)}}
    assert record.config_digest == training_digest(params.teacher("gfl"), world.data)
    # its student learns from features that are stored, and looks at images of that size, too
    world.train(params, "pgd")
    assert len(list(world.space.features("gfl").glob("*/key"))) == 1
    assert seen == {True: {(96, 128)}, False: {(96, 128)}}
    steps = dataset_of(subject_of_pair(params, "gfl", world.space).cfg)["pipeline"]
    assert dict(steps[1]) == {"type": "Resize", "scale": (128, 128), "keep_ratio": True}
