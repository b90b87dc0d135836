"""Select the pairs of a run and its unpaired pool, at random or by features."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from serving.imaging.ranking import rank
from trainer.batch import random
from trainer.data.dataset import Dataset, Sample
from trainer.data.layouts.files import first_of
from trainer.data.selection.features import FeatureExtractor
from trainer.data.selection.rules import BY_FEATURES, RULES
from trainer.data.selection.selection import Picks, Selection
from trainer.errors import UserError
from trainer.progress import progress_bar

Uncertainty = Callable[[np.ndarray], tuple[float, str]]
"""A photo uint8[H,W,3] -> a model's mean uncertainty of it, 0 to 1, and the class that has the greatest part in it."""


def select(
    dataset: Dataset,
    *,
    k: int | Literal["all"],
    unpaired: int | None,
    seed: int,
    rule: str = "random",
    pool_rule: str = "random",
    features: FeatureExtractor | None = None,
    cache: Path | None = None,
    unlabelled: bool = False,
    uncertainty: Uncertainty | None = None,
) -> Selection:
    """Select k pairs of `train` within a pool of `unpaired` samples (None: all; 0: no pool, pairs from all of `train`).

    "all" keeps every pair of `train`; a smaller pool grows to hold them. `pool_rule` selects the pool from all photos,
    `rule` the pairs from the pool; one seed gives the same random pairs whatever the size of the pool. With
    `unlabelled` photos without a label are selected beside all that have one, which come first and count; with
    `uncertainty`, which says how unsure a model is of a photo, by the rule `uncertain`. With `features` random pairs
    are measured too.
    """
    train = dataset.samples("train")
    eligible = {sample for sample in train if sample.photo is not None and (unlabelled or sample.label is not None)}
    if k == "all" and rule != "random":
        raise UserError(f"--rule {rule} selects pairs, and --pairs all keeps every one: leave one of them out")
    count = len(eligible) if k == "all" else k
    if k == "all" and unpaired:
        unpaired = max(unpaired, count)
    labels = sum(sample.label is not None for sample in eligible) if unlabelled else 0
    if labels and count <= labels:
        raise UserError(
            f"--k {count}: {labels} photos of {dataset.place} are labelled, and they count: give more than {labels} "
            f"(it has {len(eligible)} photos)"
        )
    notes = []
    if unpaired is not None and unpaired > len(train):
        notes.append(f"--unpaired {unpaired}: {dataset.place} has {len(train)} training samples; all of them are used")
        unpaired, pool_rule = None, "random"
    _check(dataset, count, unpaired, rules=(rule, pool_rule), eligible=len(eligible), unlabelled=unlabelled)
    rule = rule if uncertainty is None else "uncertain"
    by_features = (rule, pool_rule) != ("random", "random")
    extractor = features if by_features or k != "all" else None

    def pick(among: Sequence[Sample], wanted: int, by: str) -> Picks:
        """Pick by rule; `random` picks the first."""
        assert extractor is not None
        ordered = sorted(among, key=lambda sample: sample.name)  # must not depend on how a folder is listed
        rows = extractor.of_samples(dataset, ordered, cache=cache)
        labelled = [row for row, sample in enumerate(ordered) if unlabelled and sample.label is not None]
        if by == "random":
            places = [ordered.index(sample) for sample in among[:wanted]]
        elif by == "uncertain":
            assert uncertainty is not None
            bar = progress_bar(ordered, what="model", unit="photo", shown=True)
            found = [(0.0, "") if sample.label else uncertainty(dataset.read_photo(sample)) for sample in bar]
            unsure = np.array([mean for mean, _ in found])
            chosen, near = rank(rows, unsure, wanted - len(labelled), labelled=labelled)
            names = [f"{ordered[row].name} (like {ordered[twin].name})" for row, twin in sorted(near.items())]
            if names:
                notes.append(f"{len(names)} near-duplicates are set aside: {first_of(names)}")
            reasons = (f"mean confidence {1 - unsure[row]:.2f}, least sure of {found[row][1]}" for row in chosen)
            return Picks(tuple(ordered), rows, (*labelled, *chosen), (*("" for _ in labelled), *reasons))
        else:
            places = BY_FEATURES[by](rows, wanted, seed, labelled=labelled[:wanted])
        return Picks(tuple(ordered), rows, tuple(places))

    shuffled = [train[place] for place in random(seed, 0, "pool").permutation(len(train))]
    if unlabelled:
        shuffled.sort(key=lambda sample: sample.label is None)
    pool_picks, pair_picks = None, None
    pool: Sequence[Sample] = shuffled
    if pool_rule != "random" and unpaired:
        photos = [sample for sample in train if sample.photo is not None]
        pool_picks = pick(photos, unpaired, pool_rule)
        pool = pool_picks.chosen
    elif unpaired:
        first = [sample for sample in shuffled if sample in eligible][:count]
        pool = list(dict.fromkeys([*first, *shuffled]))[:unpaired]
    labelled_pool = eligible.intersection(pool)
    inside = [sample for sample in shuffled if sample in labelled_pool]
    if count > len(inside):
        raise UserError(
            f"{count} pairs: of the pool of {unpaired} that --pool-rule {pool_rule} selected from {dataset.place}, "
            f"only {len(inside)} have a label: use a larger --unpaired, or label the others first (`fewpair pairs "
            "--unlabelled` lists them)"
        )
    pairs: Sequence[Sample] = inside[:count]
    if extractor is not None and count:
        pair_picks = pick(inside, count, rule)
        pairs = pair_picks.chosen
    used = [] if unpaired == 0 else sorted(pool, key=lambda each: each.name)
    return Selection(
        dataset=dataset,
        pairs=tuple(pairs),
        unpaired_photos=tuple(sample for sample in used if sample.photo is not None),
        unpaired_labels=tuple(sample for sample in used if sample.label is not None),
        rule="all" if k == "all" else rule,
        pool_rule=pool_rule,
        seed=seed,
        features=extractor.name if extractor is not None and by_features else None,
        cluster_sizes=pair_picks.cluster_sizes if pair_picks and rule != "random" else None,
        picks=pair_picks,
        pool_picks=pool_picks,
        notes=tuple(notes),
    )


def _check(
    dataset: Dataset, k: int, unpaired: int | None, *, rules: tuple[str, str], eligible: int, unlabelled: bool
) -> None:
    place, (rule, pool_rule) = dataset.place, rules
    what = "training photos" if unlabelled else "training pairs"
    remedy = "" if unlabelled else "; `fewpair train --pairs all` uses all of them"
    for wrong, problem in (
        (rule not in RULES, f"--rule {rule}: there is no such rule; the rules are {', '.join(RULES)}"),
        (pool_rule not in RULES, f"--pool-rule {pool_rule}: there is no such rule; the rules are {', '.join(RULES)}"),
        (
            pool_rule != "random" and not unpaired,
            f"--pool-rule {pool_rule} selects the unpaired pool: give its size, as in --unpaired 200",
        ),
        (k < 0 or (unpaired or 0) < 0, f"{k} pairs and --unpaired {unpaired}: neither can be negative"),
        (
            k and not eligible,
            f"{k} pairs: no photo of {place} has a label of the same file name; `fewpair pairs --unlabelled` selects "
            "photos to label",
        ),
        (k > eligible, f"{k} pairs are more than the {eligible} {what} of {place}{remedy}"),
        (
            unpaired and unpaired < k,
            f"--unpaired {unpaired} is smaller than the {k} pairs selected from it: use at least {k}, or 0 (pairs "
            "alone)",
        ),
    ):
        if wrong:
            raise UserError(problem)
