"""NanoDet-m: 320x320, 0.94 M parameters; 20.6 AP on COCO val2017 by its authors."""

_base_ = "nanodet.py"

_test = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(320, 320), keep_ratio=False),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(dataset=dict(type="CocoDataset", test_mode=True, pipeline=_test))
