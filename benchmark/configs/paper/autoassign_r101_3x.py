"""PGD's AutoAssign teacher on COCO.

Theirs has style "caffe" with torchvision's weights, which puts the strides into other convolutions; here both agree.
"""

_base_ = ["../detectors/autoassign.py", "../datasets/coco_ms.py", "../schedules/coco_3x.py"]

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
