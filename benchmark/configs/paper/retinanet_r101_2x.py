"""The RetinaNet teacher of PGD's rivals on COCO: mmdet's 2x."""

_base_ = "retinanet_r50_2x.py"

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
optim_wrapper = dict(clip_grad=None)
