"""Published AP of distilled students, by what the student was trained as, so that only like stands beside like.

:data:`FOOTINGS` is the data, :func:`page` the text of docs/published.md, which ``python -m benchmark.methods`` writes.
Every figure was read in the source that stands beside it; none was measured here.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.evidence.markdown import markdown_table

DASH = "\u2013"


@dataclass(frozen=True)
class Figure:
    """One distilled student, AP in percent as printed."""

    method: str
    distilled: str
    #: AP of the student that the source compares with
    printed: str
    source: str
    #: AP of the teacher, R101 where the footing names no other; empty where the source does not say
    teacher: str = ""
    #: whether neck and head start as the teacher's; None where the source does not say
    inherits: bool | None = False
    note: str = ""


@dataclass(frozen=True)
class Footing:
    """Detector, head and schedule of a student, with what it reaches without distillation."""

    detector: str
    student: str
    #: AP without distillation; empty where nothing that was read says it
    plain: str
    plain_source: str
    figures: tuple[Figure, ...]

    @property
    def name(self) -> str:
        return f"{self.detector}, {self.student}"


LD_README = "README of HikariTJU/LD, commit 4287990"
CSKD_README = "README of swkdn16/CSKD"
BCKD_README = "README of TinyTigerPan/BCKD"
CROSSKD_README = "README of CrossKD"
PGD_README = "README of ChenhongyiYang/PGD, commit 81c54d5"
FRS_README = "README of duzhixing/FRS"
FGD_README = "README of yzd-v/FGD"
CANKD_README = "README of tori-hotaru/CanKD"
MASKD_README = "README of hunto/MasKD"
PCKA_IMAGE = "image in the README of Klayand/PCKA"
DETKDS_FILES = "file names in the results of lliai/DetKDS"
FREEKD_README, AVATARKD_README = "README of Gumpest/FreeKD", "README of Gumpest/AvatarKD"
ICD_README = "README of MegEngine/ICD"
ACAM_NOTES, SCALE_NOTES, SSIM_NOTES = (f"notes of the {name} paper" for name in ("ACAM-KD", "ScaleKD", "SKD-SSIM"))

FOOTINGS = (
    Footing(
        "GFL",
        "1x, one scale",
        "40.2",
        f"{CROSSKD_README}; LD and BCKD have 40.1",
        (
            Figure("FitNet", "40.7", "40.1", LD_README),
            Figure("DeFeat", "40.8", "40.1", LD_README),
            Figure("FGFI", "41.1", "40.1", LD_README),
            Figure("GID", "41.5", "40.1", LD_README),
            Figure("CWD", "41.9", "40.2", "README of mmrazor's CWD", "44.7"),
            Figure("LD", "42.1", "40.1", LD_README),
            Figure("ScaleKD", "42.5", "40.1", SCALE_NOTES, "", None, "schedule by its baseline"),
            Figure("BCKD", "43.2", "40.1", BCKD_README),
            Figure("FGD", "43.5", "40.2", FGD_README, "", True),
            Figure("FRS", "43.6", "40.2", FRS_README, "44.9"),
            Figure("CrossKD", "43.7", "40.2", CROSSKD_README, "44.9"),
            Figure("PGD", "43.8", "40.2", PGD_README, "45.8", True, "stronger teacher (3x)"),
            Figure("CrossKD + PKD", "43.9", "40.2", CROSSKD_README, "44.9"),
            Figure("UET on FGD", "44.1", "40.2", "abstract of arXiv 2406.06999", "", None, "schedule by its baseline"),
        ),
    ),
    Footing(
        "GFL",
        "2x, multi-scale",
        "42.9",
        f"{FRS_README}; {CSKD_README}",
        (
            Figure("DetKDS", "43.7", "40.2", DETKDS_FILES, "44.9", True),
            Figure("CSKD", "44.5", "40.2", CSKD_README, "44.9", False, "trains stem and first stage"),
            Figure("FRS", "44.7", "42.9", FRS_README, "44.9"),
        ),
    ),
    Footing(
        "FCOS",
        "plain head, 2x, multi-scale",
        "38.5",
        f"{CROSSKD_README}; {FRS_README}",
        (
            Figure("FRS", "40.9", "38.5", FRS_README, "40.8"),
            Figure("CrossKD", "41.1", "38.5", CROSSKD_README, "40.8"),
            Figure("CrossKD + PKD", "41.3", "38.5", CROSSKD_README, "40.8"),
        ),
    ),
    Footing(
        "FCOS",
        "improved head, 2x, multi-scale",
        "40.9",
        f"{CSKD_README}, whose authors trained it",
        (
            Figure("CSKD", "42.0", "40.9", CSKD_README, "42.6", False, "teacher with the improved head, too"),
            Figure("DetKDS", "42.5", "38.5", DETKDS_FILES, "40.8", True),
            Figure("FGD", "42.7", "38.5", FGD_README, "", True),
            Figure("MasKD", "42.9", "38.5", MASKD_README, "40.8", False, "42.2 at first"),
        ),
    ),
    Footing(
        "FCOS",
        "plain head, 2x, one scale",
        "",
        "",
        (
            Figure("PCKA", "39.8", "38.5", PCKA_IMAGE, "40.8", False, "one scale by its configuration"),
            Figure("PCKA + mimicking", "40.7", "38.5", PCKA_IMAGE, "40.8", False, "one scale by its configuration"),
        ),
    ),
    Footing(
        "FCOS",
        "improved head, 2x, one scale",
        "",
        "",
        (Figure("CanKD", "42.4", "38.5", CANKD_README, "40.8", False, "42.4 inheriting, too"),),
    ),
    Footing(
        "FCOS",
        "improved head, 1x, one scale",
        "38.2",
        PGD_README,
        (Figure("PGD", "42.5", "38.2", PGD_README, "43.1", True, "stronger teacher (3x)"),),
    ),
    Footing(
        "FCOS",
        "AdelaiDet's, 1x",
        "39.4",
        ICD_README,
        (Figure("ICD", "42.9", "39.4", ICD_README, "", True, "teacher 3x"),),
    ),
    Footing(
        "FCOS",
        "head not known",
        "",
        "",
        (
            Figure("ScaleKD", "42.7", "38.5", SCALE_NOTES, "", None),
            Figure("FreeKD", "42.9", "38.5", FREEKD_README, "40.8", None, "its configuration names a missing loss"),
            Figure("AvatarKD", "42.9", "38.5", AVATARKD_README, "40.8", None, "no configuration"),
        ),
    ),
    Footing(
        "ATSS",
        "1x, one scale",
        "39.4",
        CROSSKD_README,
        (
            Figure("CrossKD", "41.8", "39.4", CROSSKD_README, "41.5"),
            Figure("CrossKD + PKD", "41.8", "39.4", CROSSKD_README, "41.5"),
        ),
    ),
    Footing(
        "ATSS",
        "with a branch for the IoU, 1x, one scale",
        "39.6",
        PGD_README,
        (Figure("PGD", "44.2", "39.6", PGD_README, "45.5", True, "stronger teacher (3x)"),),
    ),
    Footing(
        "RetinaNet",
        "2x, one scale",
        "37.4",
        f"{CROSSKD_README}; {FRS_README}",
        (
            Figure("FGD", "39.6", "37.4", f"a table in {ACAM_NOTES}", "", None),
            Figure("FRS", "39.7", "37.4", FRS_README, "38.9"),
            Figure("CrossKD", "39.7", "37.4", CROSSKD_README, "38.9"),
            Figure("CanKD", "39.7", "37.4", CANKD_README, "38.9", False, "39.8 inheriting"),
            Figure("CrossKD + PKD", "39.8", "37.4", CROSSKD_README, "38.9"),
            Figure("MasKD", "39.9", "37.4", MASKD_README, "38.9", True, "and L1 of raw boxes"),
            Figure("FreeKD", "39.9", "37.4", FREEKD_README, "38.9", False, "and smooth L1 of raw boxes"),
            Figure("DetKDS", "40.2", "37.4", DETKDS_FILES, "38.9", True),
            Figure("AvatarKD", "40.3", "37.4", AVATARKD_README, "38.9", None, "schedule by its baseline"),
            Figure("SKD-SSIM", "40.6", "37.4", SSIM_NOTES, "", None),
            Figure("ACAM-KD", "41.2", "37.4", ACAM_NOTES, "", True, "schedule by its baseline"),
            Figure("ScaleKD", "41.7", "37.4", SCALE_NOTES, "", None, "schedule by its baseline"),
        ),
    ),
    Footing(
        "RetinaNet",
        "2x, one scale, taught by X101",
        "37.4",
        f"{CROSSKD_README}; {FRS_README}",
        (
            Figure("DIST", "39.8", "37.4", "README of hunto/DIST_KD", "41.0"),
            Figure("PCKA", "40.3", "37.4", PCKA_IMAGE, "41.0"),
            Figure("CWD", "40.5", "37.4", "table of CWD in pppppM/mmdetection-distiller", "40.8"),
            Figure("FGD", "40.7", "37.4", FGD_README, "", True),
            Figure("PCKA + mimicking", "40.7", "37.4", PCKA_IMAGE, "41.0"),
            Figure("PKD", "40.8", "37.4", "README of mmrazor's PKD", "41.0"),
            Figure("CanKD", "41.0", "37.4", CANKD_README, "41.0", False, "41.1 inheriting"),
            Figure("FreeKD", "41.0", "37.4", FREEKD_README, "41.0", None),
            Figure("MasKD", "41.0", "37.4", MASKD_README, "41.0", True, "and smooth L1 of raw boxes; 40.6 at first"),
            Figure(
                "MGD", "41.0", "37.4", "README of yzd-v/MGD", "", True, "its config loads a teacher of 3x, multi-scale"
            ),
            Figure("DetKDS", "41.1", "37.4", DETKDS_FILES, "", True),
            Figure("ACAM-KD", "41.5", "37.4", ACAM_NOTES, "", True, "schedule by its baseline"),
            Figure("AvatarKD", "41.5", "37.4", AVATARKD_README, "41.0", None, "schedule by its baseline"),
        ),
    ),
    Footing(
        "RetinaNet",
        "2x, multi-scale",
        "",
        "",
        (Figure("CSKD", "40.2", "37.4", CSKD_README, "38.9", False, "trains stem and first stage"),),
    ),
    Footing(
        "RetinaNet",
        "1x, one scale",
        "36.5",
        "README of mmrazor's PKD; the notes of SKD-SSIM have 36.4",
        (Figure("SKD-SSIM", "40.1", "36.4", SSIM_NOTES, "", None),),
    ),
    Footing(
        "RetinaNet",
        "detectron2's, 1x",
        "37.4",
        ICD_README,
        (Figure("ICD", "40.7", "37.4", ICD_README, "", True, "teacher 3x"),),
    ),
    Footing(
        "GFL",
        "R18, 1x, one scale",
        "35.8",
        BCKD_README,
        (
            Figure("ScaleKD", "37.2", "35.8", SCALE_NOTES, "", None, "detector and schedule by its baseline"),
            Figure("LD", "37.5", "35.8", LD_README, "", False, "main region, VLR and KD; the main region alone 36.5"),
            Figure("BCKD", "38.6", "35.8", BCKD_README),
        ),
    ),
    Footing(
        "GFL",
        "R18, 1x, multi-scale",
        "35.8",
        CSKD_README,
        (Figure("CSKD", "38.9", "35.8", CSKD_README, "42.9", False, "taught by an R50; trains stem and first stage"),),
    ),
    Footing(
        "FCOS",
        "R18, improved head, 1x, multi-scale",
        "32.5",
        CSKD_README,
        (Figure("CSKD", "35.9", "32.5", CSKD_README, "40.9", False, "taught by an R50; trains stem and first stage"),),
    ),
    Footing(
        "RetinaNet",
        "R18, schedule not known",
        "32.6",
        SSIM_NOTES,
        (Figure("SKD-SSIM", "36.1", "32.6", SSIM_NOTES, "", None),),
    ),
    Footing(
        "RetinaNet",
        "R18, 1x, multi-scale",
        "31.7",
        CSKD_README,
        (
            Figure("CSKD (from an R50)", "35.2", "31.7", CSKD_README, "", False, "trains stem and first stage"),
            Figure("CSKD", "35.8", "31.7", CSKD_README, "38.9", False, "trains stem and first stage"),
        ),
    ),
)

HEAD = """\
# Published figures, and which of them can be compared

AP in percent on COCO's val2017 of R50 students that an R101 teaches (in one table an X101), and in the last tables of
R18 students; written by `python -m benchmark.methods` from `benchmark/evidence/literature.py`. Nothing here was
measured in this repository.

A gain is a claim about a method only against a student of the same detector, head and schedule. Many tables compare
with another one:

- **FCOS.** MasKD, CanKD, DetKDS and FGD train a student with the improved head (boxes in units of the stride, sampling
  of centres, GIoU) and print 38.5 as its baseline, which is the plain head's. CSKD's authors trained the improved one
  without a teacher, at several scales: 40.9. So about 2.4 of what is printed as gain is the head. CanKD and PCKA train
  at one scale, and print a student of several: no student of theirs was found.
- **GFL.** DetKDS and CSKD train 2x at several scales and print 40.2, which is 1x at one scale. The student of their
  schedule has 42.9.
- **Teachers** differ by as much as 1.1 AP for GFL; inheriting the teacher's neck and head is a part of some methods'
  figures and not of others'.

Compare within a table, and mind the columns *teacher* and *inherits*. *Gain* is against the table's own student;
*printed* is what the source compares with, **bold** where that is another student.

"""
TAIL = """
## Sources

README: of the release named. Names of result files: the release prints its figures nowhere else. Notes: a summary of
the paper by somebody else, found in public repositories; the paper itself could not be read, nor could the schedule be
checked. "Schedule by its baseline": the source names no schedule, and its baseline is that of the table. Left out:
figures whose teacher or baseline could not be read (DeFeat on RetinaNet, UET on FCOS, TBD, AMD, GLAMD, SEA), and those
of other students, of teachers of another detector, or of two methods together where each stands alone (PKD, CanKD and
DIST on RetinaNet with more teachers, LD with GID). No figure at all: FKD's release prints none for one-stage
detectors, TinyKD was never measured on COCO, and PGD's faults and its loss on the neck are this repository's.
"""


def gain(figure: Figure, footing: Footing) -> str:
    """AP above the footing's plain student, to one digit with its sign; a dash where that is not known."""
    return f"{float(figure.distilled) - float(footing.plain):+.1f}" if footing.plain else DASH


def fair(figure: Figure, footing: Footing) -> bool:
    """Whether a figure is printed beside the footing's own student; sources differ by 0.1 about the same checkpoint."""
    return bool(footing.plain) and abs(float(figure.printed) - float(footing.plain)) < 0.15


def _row(figure: Figure, footing: Footing) -> list[str]:
    inherits = {True: "yes", False: "no", None: DASH}[figure.inherits]
    printed = figure.printed if fair(figure, footing) or not footing.plain else f"**{figure.printed}**"
    teacher, note = figure.teacher or DASH, figure.note
    return [figure.method, figure.distilled, gain(figure, footing), printed, teacher, inherits, figure.source, note]


def page() -> str:
    """The text of docs/published.md."""
    glance = (
        [footing.name, footing.plain or "not known", ", ".join(f"{f.method} {f.distilled}" for f in footing.figures)]
        for footing in FOOTINGS
    )
    overview = ("Student (R50 where nothing else is said)", "alone", "distilled")
    head = ("Method", "AP", "gain", "printed against", "teacher", "inherits", "source", "")
    parts = [HEAD, "## At a glance\n\n", markdown_table(overview, glance, overview)]
    for footing in FOOTINGS:
        alone = (
            f"Without a teacher: {footing.plain} ({footing.plain_source})." if footing.plain else "No baseline read."
        )
        rows = (_row(figure, footing) for figure in sorted(footing.figures, key=lambda f: float(f.distilled)))
        parts += [f"\n## {footing.name}\n\n{alone}\n\n", markdown_table(head, rows, head)]
    return "".join(parts) + TAIL
