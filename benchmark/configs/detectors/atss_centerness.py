"""ATSS as its authors and mmdet have it, with centerness; for the works that distil this one."""

_base_ = "atss.py"

model = dict(bbox_head=dict(type="ATSSHead"))
