"""PGD's teachers on CrowdHuman: three times as long, and gradients are not clipped."""

_base_ = "coco_3x.py"

optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=16)
