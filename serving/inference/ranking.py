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
    features, uncertainty, reasons = np.zeros((len(found), 256)), np.zeros(len(found)), []
    for row, report in enumerate(reports):
        doubts = {part["name"]: part["share"] * (1 - part["mean_confidence"]) for part in report["classes"]}
        uncertainty[row] = sum(doubts.values())
        features[row, [part["id"] for part in report["classes"]]] = [part["share"] for part in report["classes"]]
        reasons.append(
            f"mean confidence {1 - uncertainty[row]:.2f}, least sure of {max(doubts, key=doubts.__getitem__)}"
        )
    order, near = rank(features, uncertainty, len(found))
    photos = [
        {
            "name": names[row],
            "uncertainty": round(uncertainty[row], 4),
            "reason": f"near-duplicate of {names[near[row]]}" if row in near else reasons[row],
        }
        for row in [*order, *near]
    ]
    failed = [{"name": entry.name, "error": entry.error} for entry in entries if entry.error is not None]
    model = reports[0]["model"] if reports else None
    return Answer(json.dumps({"model": model, "photos": photos, "failed": failed}).encode(), "application/json")
