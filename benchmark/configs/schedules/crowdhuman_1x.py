"""PGD's students on CrowdHuman: 12 epochs at a rate for 16 images a step (8 GPUs of 2)."""

_base_ = "coco_1x.py"

optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=16)
