"""PGD's teachers: three times as long, and gradients are not clipped."""

_base_ = "coco_1x.py"

train_cfg = dict(max_epochs=36)
optim_wrapper = dict(clip_grad=None)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=36, milestones=[24, 33], gamma=0.1),
]
