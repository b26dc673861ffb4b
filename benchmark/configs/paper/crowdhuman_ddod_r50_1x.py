"""PGD's DDOD student on CrowdHuman: its whole backbone is trained, and up to 500 boxes an image are kept."""

_base_ = ["../detectors/ddod.py", "../datasets/crowdhuman.py", "../schedules/crowdhuman_1x.py"]

model = dict(
    backbone=dict(frozen_stages=-1),
    bbox_head=dict(num_classes=1),
    test_cfg=dict(max_per_img=500),
)
