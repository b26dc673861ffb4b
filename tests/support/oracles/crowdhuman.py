"""CrowdHuman's three figures box by box in plain Python: slow, and with nothing but the rules in mind.

An image is ``{"size": (width, height), "truth": [(box, tag, ignore)], "found": [(box, score)]}``; boxes are x, y, w, h.
"""

from __future__ import annotations

import math
from itertools import pairwise

EPS = 1e-6
FPPI = (0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0)
SCORES = [0.1 * i for i in range(10)]


def clip(box, size):
    """Corners inside the image: the upper left one stays a pixel away from the far borders."""
    x, y, w, h = box
    width, height = size
    return (
        min(max(x, 0), width - 1),
        min(max(y, 0), height - 1),
        max(min(x + w, width), 0),
        max(min(y + h, height), 0),
    )


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def iou(a, b):
    return overlap(a, b) / (area(a) + area(b) - overlap(a, b) + EPS)


def ioa(a, region):
    return overlap(a, region) / (area(a) + EPS)


def split(image, sized_only):
    """Persons and ignore regions, clipped; JI knows only boxes that have a width and a height."""
    persons, regions = [], []
    for box, tag, ignore in image["truth"]:
        if sized_only and (box[2] <= 0 or box[3] <= 0):
            continue
        (persons if tag == "person" and not ignore else regions).append(clip(box, image["size"]))
    return persons, regions


def curve(images):
    """(hits, false alarms) after each detection of the pooled list, and the number of persons."""
    pooled, total = [], 0
    for image in images:
        persons, regions = split(image, sized_only=False)
        total += len(persons)
        used = set()
        for box, score in sorted(image["found"], key=lambda d: -d[1]):
            box = clip(box, image["size"])
            best, best_iou = None, 0.5
            for j, person in enumerate(persons):
                if j not in used and iou(box, person) > best_iou:
                    best, best_iou = j, iou(box, person)
            if best is not None:
                used.add(best)
                pooled.append((score, True))
            elif not any(ioa(box, region) > 0.5 for region in regions):
                pooled.append((score, False))
    pooled.sort(key=lambda d: -d[0])
    points, hits, alarms = [], 0, 0
    for _, hit in pooled:
        hits, alarms = hits + hit, alarms + (not hit)
        points.append((hits, alarms))
    return points, total


def average_precision(images):
    points, total = curve(images)
    value = 0.0
    for (h0, f0), (h1, f1) in pairwise(points):
        value += (h1 - h0) / total * (h0 / (h0 + f0) + h1 / (h1 + f1)) / 2
    return value


def miss_rate(images):
    points, total = curve(images)
    product = 1.0
    for reference in FPPI:
        reached = [h for h, f in points if f / len(images) >= reference]
        hits = reached[0] if reached else points[-1][0]
        product *= 1 - hits / total
    return product ** (1 / len(FPPI))


def heaviest(weights, j=0, used=frozenset()):
    """(weight, pairs) of the matching of the largest total weight, by trying all of them."""
    if j == len(weights):
        return 0.0, ()
    best = heaviest(weights, j + 1, used)
    for i, weight in weights[j].items():
        if i not in used:
            rest, pairs = heaviest(weights, j + 1, used | {i})
            if weight + rest > best[0]:
                best = weight + rest, ((j, i), *pairs)
    return best


def jaccard(images):
    """The mean Jaccard index at each of the ten thresholds."""
    means = []
    for threshold in SCORES:
        ratios, counted = 0.0, 0
        for image in images:
            persons, regions = split(image, sized_only=True)
            found = [clip(box, image["size"]) for box, score in image["found"] if score > threshold]
            weights = [{j: iou(d, p) for j, d in enumerate(found) if iou(d, p) > 0.5} for p in persons]
            pairs = heaviest(weights)[1]
            matched_persons, matched_found = {a for a, _ in pairs}, {b for _, b in pairs}

            def left(boxes, matched, regions=regions):
                ignored = [i for i, b in enumerate(boxes) if i not in matched and any(ioa(b, r) > 0.5 for r in regions)]
                return len(boxes) - len(ignored)

            k, m, n = len(pairs), left(persons, matched_persons), left(found, matched_found)
            ratios += k / (m + n - k + EPS)
            counted += m != 0 or n != 0
        means.append(ratios / counted if counted else math.nan)
    return means
