"""CrowdHuman's figures of a detections file: ``python -m pgd.evaluation annotation_val.odgt detections.json``."""

from __future__ import annotations

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pgd.evaluation", description="CrowdHuman's AP, MR^-2 and JI of a detections file, in percent."
    )
    parser.add_argument("annotations", help="annotation_val.odgt")
    parser.add_argument(
        "detections", help='JSON list of {"ID", "width", "height", "boxes": [[x, y, w, h, score], ...]}'
    )
    parser.add_argument("--subset", action="store_true", help="only the images that have an entry")
    args = parser.parse_args()
    # help and usage errors come before the imports that take seconds
    from pgd.evaluation.crowdhuman import evaluate
    from pgd.evaluation.odgt import CrowdHumanError, read_detections

    try:
        figures = evaluate(args.annotations, read_detections(args.detections), args.subset)
    except (CrowdHumanError, OSError) as error:
        sys.exit(f"error: {error}")
    print("  ".join(f"{name} {100 * value:.3f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
