"""A GFL of R18 on small images of a COCO tree: plain mmdet, the detector that a user brings along."""

_base_ = "mmdet::gfl/gfl_r50_fpn_1x_coco.py"

data_root = "{{$PGD_COCO_SAMPLE:data/coco}}/"
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint="torchvision://resnet18")),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (320, 192)
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
val_evaluator = dict(ann_file=data_root + "annotations/instances_val2017.json")
test_dataloader, test_evaluator = val_dataloader, val_evaluator

train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=50, val_interval=50)
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=10)]
optim_wrapper = dict(clip_grad=dict(max_norm=35))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=50))
log_processor = dict(by_epoch=False)
