"""What the NanoDets share: GFL on ShuffleNetV2, photographs stretched to a square. To be looked into, not trained.

Photographs keep their order of channels (blue first). NanoDet trains at a fixed size whatever the shape, so that
both axes are scaled on their own.
"""

custom_imports = dict(imports=["pgd.plugin"], allow_failed_imports=False)
default_scope = "mmdet"

model = dict(
    type="GFL",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[103.53, 116.28, 123.675],
        std=[57.375, 57.12, 58.395],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    backbone=dict(type="NanoShuffleNetV2", channels=(116, 232, 464)),
    neck=dict(type="NanoPAN", in_channels=[116, 232, 464], out_channels=96),
    bbox_head=dict(
        type="NanoDetHead",
        num_classes=80,
        in_channels=96,
        feat_channels=96,
        stacked_convs=2,
        kernel=3,
        reg_max=7,
        anchor_generator=dict(
            type="AnchorGenerator",
            ratios=[1.0],
            octave_base_scale=5,
            scales_per_octave=1,
            strides=[8, 16, 32],
            # positions are the middles of their cells
            center_offset=0.5,
        ),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type="DistributionFocalLoss", loss_weight=0.25),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.025,
        nms=dict(type="nms", iou_threshold=0.6),
        max_per_img=100,
    ),
)
