"""Detectors that keep only some predictions, or features, of each box."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from support.detectors import ALL, BOXES, LABELS, QUIET, SIZE, batch, detector, images, sample
from torch import Tensor, nn
from torch.testing import assert_close

from benchmark.probe.analysis import (
    silenced,
)
from benchmark.probe.dropping import MODES, Chosen, Dropper, Options, choose
from pgd.dense import reader_of
from pgd.maths.regions import (
    Objects,
    inside,
)

pytestmark = [QUIET, pytest.mark.slow]
OPTIONS = Options(percents=(1.0, 10.0, 40.0, 100.0), seeds=(0, 1))


class Loaded(nn.Module):
    """A random detector whose batches come as they are."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.detector = detector(name).eval()
        self.detector.bbox_head.test_cfg = ConfigDict(self.detector.bbox_head.test_cfg)
        self.bbox_head, self.neck = self.detector.bbox_head, self.detector.neck

    def data_preprocessor(self, data: dict, training: bool) -> dict:
        return data

    def extract_feat(self, inputs: Tensor):
        return self.detector.extract_feat(inputs)


@pytest.fixture(scope="module", params=ALL)
def scene(request) -> SimpleNamespace:
    """A detector that has looked at two images, and what is kept of the first."""
    model = Loaded(request.param)
    inputs, samples = batch()
    with torch.no_grad():
        dropper = Dropper(model)
        view, metas = dropper.look({"inputs": inputs, "data_samples": samples})
        plain = model.detector.predict(inputs, samples, rescale=True)
    truth = torch.tensor(BOXES[0]), torch.tensor(LABELS[0])
    chosen, places = (choose(view, 0, Objects(*truth), OPTIONS, 0, mode) for mode in MODES)
    both = {"chosen": chosen, "places": places}
    return SimpleNamespace(model=model, dropper=dropper, view=view, meta=metas[0], plain=plain, **both)


def rows(instances) -> Tensor:
    return torch.cat((instances.bboxes, instances.scores[:, None], instances.labels[:, None]), dim=1)


@torch.no_grad()
def detect(scene: SimpleNamespace, mode: str) -> tuple[list[Tensor], Chosen]:
    own = scene.chosen if mode == "predictions" else scene.places
    return scene.dropper.detect(mode, own.in_box & ~own.kept, scene.view.grid, 0, scene.meta), own


@pytest.mark.parametrize("mode", ["predictions", "features"])
def test_keeping_all_changes_nothing_and_keeping_less_does(scene, mode):
    found, own = detect(scene, mode)
    plain = rows(scene.plain[0].pred_instances)
    percents = OPTIONS.percents * len(OPTIONS.rankings)
    assert len(found) == len(percents) == OPTIONS.settings
    assert len(plain) > 10
    for percent, kept, detections in zip(percents, own.kept, found, strict=True):
        everything = torch.equal(kept, own.in_box)
        assert everything or percent < 100
        assert torch.equal(detections, plain) == everything
    for start in range(0, len(percents), 4):
        counts = own.kept[start : start + 4].sum(dim=1)
        assert (counts.diff() >= 0).all()
        assert counts[-1] == own.in_box.sum()
        # nested
        assert (own.kept[start : start + 3] <= own.kept[start + 1 : start + 4]).all()


@pytest.mark.parametrize("mode", MODES)
def test_controls_keep_as_many(scene, mode):
    grid, chosen = scene.view.grid, scene.chosen if mode == "predictions" else scene.places
    within = inside(grid.prediction_centers if mode == "predictions" else grid.centers, torch.tensor(BOXES[0]))
    assert torch.equal(within.any(dim=1), chosen.in_box)
    assert within.sum() > 50
    for box in range(2):
        # positions that lie in this box alone are ranked by it alone
        alone = within[:, box] & (within.sum(dim=1) == 1)
        for k, fraction in enumerate(OPTIONS.fractions):
            limit = max(1, math.ceil(int(within[:, box].sum()) * fraction - 1e-9))
            counts = chosen.kept[k :: len(OPTIONS.percents)][:, alone].sum(dim=1)
            assert (counts <= limit).all()
            assert (chosen.kept[k :: len(OPTIONS.percents)][:, within[:, box]].sum(dim=1) >= limit).all()


def test_dropped_predictions_vanish_and_others_stay(scene):
    """Every detection is a prediction that was not dropped; without the limits, all of these are detections."""
    view, head = scene.view, scene.model.bbox_head
    found, own = detect(scene, "predictions")
    height, width = SIZE
    boxes = view.boxes[0]
    boxes = torch.stack([boxes[:, i].clamp(0, width if i % 2 == 0 else height) for i in range(4)], dim=1)
    quality_of = view.quality_logits
    scores = view.scores[0] * (1 if quality_of is None else quality_of[0].sigmoid()[:, None])
    for kept, detections in zip(own.kept, found, strict=True):
        left = kept | ~own.in_box
        dropped = 0
        for *box, score, label in detections.tolist():
            same = (boxes - torch.tensor(box)).abs().amax(dim=1) + (scores[:, int(label)] - score).abs() * 100 < 1e-2
            assert (same & left).any()
            dropped += int((same & ~left).any())
        if kept.sum() == own.in_box.sum():
            assert dropped == 0
    # without NMS: all that is left and passes the threshold
    part = (own.in_box & ~own.kept)[:1]
    outputs = [[level[:1] for level in branch] for branch in scene.dropper.tape.outputs]
    outputs[0] = silenced(outputs[0], part, view.grid)
    cfg = head.test_cfg.copy()
    cfg.update(nms_pre=100_000, min_bbox_size=-1)
    raw = head.predict_by_feat(*outputs, batch_img_metas=[scene.meta], cfg=cfg, with_nms=False)[0]
    assert len(raw.scores) == int((view.scores[0][~part[0]] > cfg.score_thr).sum())


@torch.no_grad()
@pytest.mark.parametrize("setting", [0, 2, 5])
def test_features_are_flattened_one_setting_at_a_time(scene, setting):
    """The same by hand: means by loops, one image and one setting, the head run on by the library."""
    found, own = detect(scene, "features")
    tape, grid = scene.dropper.tape, scene.view.grid
    drop = (own.in_box & ~own.kept)[setting]
    assert drop.any()
    assert len(drop) == len(grid.centers)
    towers = []
    for tower in tape.towers:
        levels = []
        for level, part in zip(tower, grid.split(drop[None]), strict=True):
            flat = level[:1].clone()
            for channel in range(flat.size(1)):
                flat[0, channel][part[0]] = level[0, channel].mean()
            levels.append(flat)
        towers.append(levels)
    outputs = reader_of(scene.model.bbox_head).outputs_from([level[:1] for level in tape.neck], *towers)
    expected = rows(scene.model.bbox_head.predict_by_feat(*outputs, batch_img_metas=[scene.meta], rescale=True)[0])
    assert_close(found[setting], expected, atol=2e-3, rtol=1e-3)


def test_a_position_is_as_good_as_the_best_of_its_predictions(scene):
    own, every = scene.places, scene.view.grid.per_position
    assert own.kept.shape == (OPTIONS.settings, len(scene.view.grid.centers))
    assert torch.equal(own.in_box, scene.chosen.in_box.reshape(-1, every)[:, 0])
    assert torch.equal(own.counts * every, scene.chosen.counts)
    if every == 1:
        assert torch.equal(own.kept, scene.chosen.kept)
        return
    # the best prediction of a box stands on its best position
    best = scene.chosen.kept[0].reshape(-1, every).any(dim=1)
    assert (best & own.kept[0]).sum() >= 1


def test_a_batch_gives_what_single_images_give():
    """Images of different sizes, padded in the batch."""
    model = Loaded("gfl")
    samples = [sample(BOXES[0], LABELS[0]), sample(BOXES[1], LABELS[1], (64, 96))]
    inputs = images()
    inputs[1, :, 64:] = inputs[1, :, :, 96:] = 0
    for one in samples:
        one.set_metainfo({"batch_input_shape": SIZE})
    with torch.no_grad():
        dropper = Dropper(model)
        view, _ = dropper.look({"inputs": inputs, "data_samples": samples})
        truth = Objects(torch.tensor(BOXES[1]), torch.tensor(LABELS[1]))
        chosen = choose(view, 1, truth, OPTIONS, 5)
        alone, _ = dropper.look({"inputs": inputs[1:, :, :64, :96], "data_samples": samples[1:]})
        single = choose(alone, 0, truth, OPTIONS, 5)
    assert torch.equal(chosen.counts, single.counts)
    assert single.counts.min() > 0
    # the dice are the image's own, whatever the batch
    k = len(OPTIONS.percents)
    small, large = alone.grid.levels, view.grid.levels
    for setting in (k, 2 * k):
        for a, b in zip(small, large, strict=True):
            part = single.kept[setting, a.start : a.start + a.height * a.width].reshape(a.height, a.width)
            whole = chosen.kept[setting, b.start : b.start + b.height * b.width].reshape(b.height, b.width)
            assert torch.equal(whole[: a.height, : a.width], part)
