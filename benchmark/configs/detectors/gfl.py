"""GFL (Li et al., 2020) as in PGD's experiments: box sides as distributions, ATSS assignment."""

_base_ = "anchors.py"

model = dict(
    type="GFL",
    bbox_head=dict(
        type="GFLHead",
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type="DistributionFocalLoss", loss_weight=0.25),
        reg_max=16,
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1, debug=False),
)
