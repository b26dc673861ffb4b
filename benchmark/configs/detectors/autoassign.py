"""AutoAssign (Zhu et al., 2020) as in PGD's experiments; it learns its assignment, so there is no train_cfg."""

_base_ = "dense.py"

model = dict(
    type="AutoAssign",
    neck=dict(
        add_extra_convs="on_input",
        relu_before_extra_convs=True,
        init_cfg=dict(type="Caffe2Xavier", layer="Conv2d"),
    ),
    bbox_head=dict(
        type="AutoAssignHead",
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        strides=[8, 16, 32, 64, 128],
        loss_bbox=dict(type="GIoULoss", loss_weight=5.0),
        pos_loss_weight=0.25,
        neg_loss_weight=0.75,
        center_loss_weight=0.75,
    ),
)
