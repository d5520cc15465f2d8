"""CityPersons' evaluation as its script does it, box by box: a hand-written reading, for tests."""

import numpy as np

REFERENCES = (0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0)


def official(preds, target, setting):
    """MR⁻² in percent of (x, y, w, h) under one setting; -100 where no pedestrian counts."""
    scores, hits, people = [], [], 0
    for one, rows in zip(preds, target, strict=True):
        pairs = zip(one["boxes"].tolist(), one["scores"].tolist(), strict=True)
        boxes = [[*box, score] for box, score in pairs]
        found, real = of_image(boxes, np.asarray(rows).tolist(), setting)
        people += real
        scores += [score for score, _ in found]
        hits += [hit for _, hit in found]
    if not people:
        return -100
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    true, false, recalls, fppi = 0, 0, [], []
    for place in order:
        true, false = true + hits[place], false + (not hits[place])
        recalls.append(true / people)
        fppi.append(false / len(preds))
    # The last point at or below each reference; where there is none, -1 wraps to the last of all.
    last = [sum(value <= reference for value in fppi) - 1 for reference in REFERENCES]
    read = [recalls[place] if recalls else 0 for place in last]
    with np.errstate(divide="ignore"):
        return 100 * np.exp(np.mean(np.log(1 - np.array(read))))


def of_image(boxes, rows, setting):
    """(score, hit) of each detection that counts, and the number of pedestrians that do."""
    (low, high), (least, most) = setting
    truths = []
    for kind, x, y, w, h, _, _, _, seen_w, seen_h in rows:
        visibility = seen_w * seen_h / (w * h) if w * h else 0
        ignored = kind != 1 or not (low <= h <= high and least <= visibility <= most)
        truths.append(((x, y, w, h), ignored))
    truths.sort(key=lambda one: one[1])  # real ones first
    boxes = sorted(boxes, key=lambda box: -box[4])[:1000]
    taken, found = set(), []
    for *box, score in boxes:
        if not low / 1.25 <= box[3] < high * 1.25:
            continue
        best, match = 0.5, None
        for place, (truth, ignored) in enumerate(truths):
            if place in taken:
                continue
            if match is not None and ignored:
                break
            overlap = overlapping(box, truth, ignored)
            if overlap >= best:
                best, match = overlap, place
        if match is None:
            found.append((score, False))
        elif not truths[match][1]:
            taken.add(match)
            found.append((score, True))
    return found, sum(not ignored for _, ignored in truths)


def overlapping(box, truth, ignored):
    across = min(box[0] + box[2], truth[0] + truth[2]) - max(box[0], truth[0])
    down = min(box[1] + box[3], truth[1] + truth[3]) - max(box[1], truth[1])
    if across <= 0 or down <= 0:
        return 0
    shared, area = across * down, box[2] * box[3]
    return shared / (area if ignored else area + truth[2] * truth[3] - shared)
