"""What the report says about its tables and figures."""

from __future__ import annotations

from benchmark.evidence.intervals import RESAMPLES
from benchmark.evidence.tables import UNRESOLVED
from benchmark.figures import samples

NOTES = (
    "All figures in percent. AP: mean ± standard deviation over seeds; the other columns: means over seeds. "
    "Gain: AP minus that of the student without a method on the same footing (same pair, data, detector, backbone, "
    "schedule and inheritance), paired by seed. To inherit: to take parts over from the teacher before training. "
    f"{UNRESOLVED.capitalize()}: the interval holds zero, so these seeds and images cannot tell the gain from none."
)
#: What the 95% intervals say, by what they rest on.
INTERVALS = {
    "seeds": (
        "95%, several seeds: t-interval of the mean of the differences paired by seed, what other seeds may change, "
        "on these images."
    ),
    "images": (
        f"95%, one seed: paired bootstrap over the validation images ({RESAMPLES} resamples), what other images may "
        "change; how much another seed would change is not in it, so that an interval without zero is no proof."
    ),
    "both": (
        f"95%, several seeds: paired bootstrap over seeds and validation images ({RESAMPLES} resamples), what other "
        "trainings and other images may change. p: two-sided, of no gain, by Holm over the methods compared with one "
        "baseline; the outcome goes by the interval of the run alone. Better: how often a training of the run is "
        "better than one of its baseline, on images drawn anew."
    ),
}
CROWD_NOTES = (
    "AP, MR and JI as CrowdHuman's evaluation defines them. MR: log-average miss rate over 0.01 to 1 false alarms an "
    "image; lower is better, a negative change an improvement. JI: Jaccard index at the best score."
)
BY_RUN = (
    "A dot is one seed, the tick the mean of several. The teacher is a dashed line and the student trained alone a "
    "dotted one, where they lie within the axes; what lies beyond is written at the edge. Axes do not start at zero."
)
CAPTIONS = {
    "ap": (
        "AP of every run, one dot a seed, and its gain with an interval",
        f"AP of every run on the whole validation set. {BY_RUN} The gain over the student without a method on the same "
        "footing stands at the right or, where all start from one training, above, with its 95% interval (see the "
        "notes of the table), hollow where it holds zero. Colours say where a method distils.",
    ),
    "mr": (
        "Miss rate and Jaccard index of every run, one dot a seed",
        f"Miss rate (lower is better), its change to the student without a method, and JI. {BY_RUN}",
    ),
    "cost": (
        "Gain in AP against the time of a training step",
        "What a method gains and what it takes: time of a training step relative to the student alone, thin lines from "
        "quartile to quartile over the turns, and in a dot's area the extra memory, where it differs. Measured side by "
        "side on one machine. The grey steps join the runs that none beats in both. Names stand where there is room, "
        "the table has all; a triangle is a loss beyond the axis.",
    ),
    "schedule": (
        "AP, gain and share of the gap to the teacher by the length of the training",
        "Each point is a training of its own, with its rate falling to its end: AP, mean over seeds, and what a method "
        "gains over the student without one that trained as long, with its 95% interval, and as a share of what that "
        "student lacks to the teacher. Where the lines of two methods cross, a benchmark of short trainings ranks them "
        "otherwise than one of long ones. The other figures leave the shorter ones out.",
    ),
    "ablation": (
        "What a change of one setting does",
        "Gain in AP with its 95% interval of runs that differ from one of them (in bold; dashed line and band) in what "
        "stands at the left.",
    ),
    "curves": (
        "Gain in AP during training, a panel a run",
        "How far each run's AP is ahead of the student without a method on the same footing, at the same iteration: "
        "mean over seeds, the band spans the lowest and the highest seed, the other runs in grey. What goes beyond "
        "the scale in the first half is cut off. AP is measured on a part of the validation set here, so that the last "
        "gain differs from the table's.",
    ),
}
SAMPLES = (
    "Ground truth and detections on validation images",
    f"From above: ground truth, then what {{shown}} found, on three validation images with {samples.FEW} to "
    f"{samples.MANY} objects: the one on which the method is ahead of the student without one as on the median image "
    "(by F1), and those on which it gains and loses most. Each detector's boxes are shown from the score on, written "
    "beside it, at which its F1 on such images is best. Solid: same class and an IoU of "
    f"{samples.MIN_IOU} or more with an object not yet found; dashed, of several classes with class and score: false; "
    "faint: missed; dotted: to be ignored (what is found inside is not drawn).",
)
