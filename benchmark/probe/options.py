"""What the analysis of key regions offers to choose from; light, because the command line reads it before torch."""

#: shares of the predictions in a box to keep
PERCENTS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
#: of the images, for the intervals; more would take longer than the detector
RESAMPLES = 200
MODES = ("predictions", "features")
#: what together names a detector that is no pair's teacher
FILES = ("config", "checkpoint", "annotations", "images")
EXAMPLE = "mmdet::gfl/gfl_r50_fpn_1x_coco.py"
#: Where a checkpoint and the annotations have the classes in different orders, the head's outputs follow one of them.
ORDERS = ("checkpoint", "annotations")
