"""PGD's ATSS (IoU branch) student with a MobileNetV2 (Sandler et al., 2018) of strides 4 to 32 on COCO.

Nothing of the backbone is frozen but scale and shift of its norms, whose statistics go on: the release leaves
``norm_eval`` off. The neck's laterals have other widths than the teacher's, so they are not inherited.
"""

_base_ = ["../detectors/atss.py", "../datasets/coco.py", "../schedules/coco_1x.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="MobileNetV2",
        out_indices=(1, 2, 4, 7),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=False),
        init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://mmdet/mobilenet_v2"),
    ),
    neck=dict(in_channels=[24, 32, 96, 1280]),
)
