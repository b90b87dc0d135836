"""POST /v1/rank: the order in which to label several photos, from what the model says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from serving.imaging.ranking import rank
from serving.inference.archive import Entry
from serving.inference.outputs import Answer


def ranked(entries: Sequence[Entry]) -> Answer:
    """Rank photos whose answers are those of `output=json`. Photos are alike where the same classes cover them."""
    found = [(entry.name, json.loads(entry.answers[0].body)) for entry in entries if entry.answers]
    reports, names = [report for _, report in found], [name for name, _ in found]
    features, doubts = np.zeros((len(found), 256)), np.zeros((len(found), 256))
    for row, each in enumerate(reports):
        for part in each["classes"]:
            features[row, part["id"]] = part["share"]
            doubts[row, part["id"]] = part["share"] * (1 - (part["mean_confidence"] or 0))
    order, near = rank(features, doubts.sum(1), len(found))
    photos = []
    for row in [*order, *near]:
        worst = next(part["name"] for part in reports[row]["classes"] if part["id"] == doubts[row].argmax())
        why = f"mean confidence {1 - doubts[row].sum():.2f}, least sure of {worst}"
        why = f"near-duplicate of {names[near[row]]}" if row in near else why
        photos.append({"name": names[row], "uncertainty": round(doubts[row].sum(), 4), "reason": why})
    failed = [{"name": entry.name, "error": entry.error} for entry in entries if entry.error is not None]
    model = reports[0]["model"] if reports else None
    return Answer(json.dumps({"model": model, "photos": photos, "failed": failed}).encode(), "application/json")
