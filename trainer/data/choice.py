"""Which k samples keep their pairing and which feed the unpaired pool, by chance or by features, with everything that shows why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.batch import random
from trainer.data import selection
from trainer.data.catalogue import Dataset, Sample
from trainer.data.decode import BrokenFile
from trainer.errors import UserError

if TYPE_CHECKING:  # torchvision takes seconds to import, and `random` needs none of it
    from trainer.data.featurecache import KnownFeatures
    from trainer.data.features import FeatureSource

RULES = ("random", *selection.RULES)
"""Every rule that `--rule` and `--pool-rule` name."""
NEAR = 0.2
"""Two picks are called near-duplicates below this share of the mean distance between picks."""


@dataclass(frozen=True)
class Stage:
    """One choice among samples whose features are known."""

    samples: tuple[Sample, ...]
    """The set, in the order of the names."""
    features: np.ndarray
    """Float32[N,D] of the set."""
    picks: selection.Picks

    def near_duplicates(self) -> list[tuple[Sample, Sample]]:
        """The picks that show nearly the same."""
        chosen = self.features[list(self.picks.indices)].astype(np.float64)
        between = selection.distances(chosen, chosen)
        ones, others = np.triu_indices(len(chosen), 1)
        near = between[ones, others] < NEAR * between[ones, others].mean() if len(ones) else np.zeros(0, bool)
        samples = [self.samples[index] for index in self.picks.indices]
        return [(samples[one], samples[other]) for one, other in zip(ones[near], others[near], strict=True)]


@dataclass(frozen=True)
class Choice:
    """What was chosen."""

    rule: str
    pool_rule: str
    seed: int
    pairs: tuple[Sample, ...]
    """The k: in the order of the draw, or of the rule that chose them."""
    pool: tuple[Sample, ...]
    """The unpaired pool, in the order of the names."""
    extractor: str | None
    """The name of the features that decided; None where chance did."""
    stage: Stage | None
    """How the pairs lie in the set that they were chosen from, where its features are known."""
    pool_stage: Stage | None
    """The same of the pool, where a rule chose it."""
    broken: tuple[str, ...]
    """The photos that could not be read and were skipped, each with the reason."""


@dataclass(frozen=True)
class _Known:
    """The samples whose features are known, in the order of their names."""

    samples: tuple[Sample, ...]
    features: np.ndarray

    def of(self, samples: Sequence[Sample]) -> "_Known":
        if tuple(samples) == self.samples:
            return self
        row = {sample: place for place, sample in enumerate(self.samples)}
        kept = tuple(sample for sample in samples if sample in row)
        return _Known(kept, self.features[[row[sample] for sample in kept]])


class Reader:
    """Reads photos while a choice is made: through an extractor, or, without one, only to see whether they can be read."""

    def __init__(
        self,
        dataset: Dataset,
        source: "FeatureSource | KnownFeatures | None",
        *,
        cache: Path | None,
        progress: bool = False,
        skip_broken: bool = False,
    ) -> None:
        self.dataset = dataset
        self.source = source
        self.broken: dict[Sample, str] = {}
        self._cache, self._progress, self._skip_broken = cache, progress, skip_broken

    def known(self, samples: Sequence[Sample]) -> _Known:
        """The features of samples that have a photo, read once: then the extractor is let go, whose memory a large set has better use for.

        Raises UserError that names what cannot be read, unless that is to be skipped.
        """
        assert self.source is not None, "features are read once"
        source, self.source = self.source, None
        if not self._skip_broken:
            return _Known(tuple(samples), source.features(self.dataset, samples, cache=self._cache, progress=self._progress))
        features, broken = source.readable(self.dataset, samples, cache=self._cache, progress=self._progress)
        self.broken |= broken
        return _Known(tuple(sample for sample in samples if sample not in broken), features)

    def first_readable(self, samples: Iterable[Sample], k: int, *, option: str) -> list[Sample]:
        """The first k that can be decoded. Raises BrokenFile at one that cannot, unless that is to be skipped."""
        found: list[Sample] = []
        for sample in samples:
            if len(found) == k:
                break
            try:
                self.dataset.read_photo(sample)
                found.append(sample)
            except BrokenFile as error:
                if not self._skip_broken:
                    raise
                self.broken[sample] = error.reason
        if len(found) < k:
            raise UserError(f"{option} {k} asks for more than the {len(found)} photos of {self.dataset.place} that can be read")
        return found


def choose(
    dataset: Dataset,
    *,
    k: int,
    unpaired: int | None,
    rule: str,
    seed: int,
    pool_rule: str = "random",
    to_label: bool = False,
    reader: Reader | None = None,
    option: str = "--pairs",
) -> Choice:
    """Choose k pairs of `train` inside a pool of `unpaired` samples (all if None; with 0 there is no pool, and the pairs come from all).

    The pool is drawn at random, around the random pairs of the same seed, or chosen from all photos by `pool_rule`; then `rule` chooses the
    pairs among the pool's. With `to_label` photos that have no label yet may be chosen too. Rules other than `random` need a `reader`;
    with one that has an extractor a random choice is measured by its features as well. Raises UserError for what cannot be had; it calls
    k by the `option` that asked for it.
    """
    _refuse_rules(rule, pool_rule, unpaired=unpaired, reader=reader)
    name = reader.source.name if reader and reader.source else None
    train = dataset.samples("train")
    eligible = {sample for sample in train if sample.photo is not None and (to_label or sample.label is not None)}
    _refuse_counts(dataset, k, unpaired, eligible=len(eligible), to_label=to_label, option=option)
    shuffled = [train[place] for place in random(seed, 0, "pool").permutation(len(train))]
    first = [sample for sample in shuffled if sample in eligible][:k]
    pool_stage: Stage | None = None
    if pool_rule != "random" and unpaired and reader:
        photos = _by_name([sample for sample in train if sample.photo is not None])
        pool_stage = _stage(reader.known(photos), unpaired, pool_rule, seed, what="--unpaired")
        pool = [pool_stage.samples[index] for index in pool_stage.picks.indices]
    else:
        pool = shuffled if not unpaired else _filled(first, shuffled, size=unpaired)
    inside = eligible.intersection(pool)
    candidates = _by_name(inside)
    if k > len(candidates):
        raise UserError(
            f"{option} {k}: of the pool of {unpaired} that --pool-rule {pool_rule} chose from {dataset.place}, "
            f"only {len(candidates)} have a label: "
            "ask for a larger --unpaired, or label the others first (`fewpair pairs --unlabelled` says which)"
        )
    stage: Stage | None = None
    pairs = [sample for sample in shuffled if sample in inside][:k]
    if reader and name is None:
        pairs = reader.first_readable((sample for sample in shuffled if sample in inside), k, option=option)
    elif reader and k:
        known = reader.known(candidates) if pool_stage is None else _Known(pool_stage.samples, pool_stage.features).of(candidates)
        readable = set(known.samples)
        stage = _stage(known, k, rule, seed, what=option, given=[sample for sample in shuffled if sample in readable][:k])
        pairs = [stage.samples[index] for index in stage.picks.indices]
    broken = reader.broken if reader else {}
    return Choice(
        rule=rule,
        pool_rule=pool_rule,
        seed=seed,
        pairs=tuple(pairs),
        pool=() if unpaired == 0 else tuple(_by_name([sample for sample in pool if sample not in broken])),
        extractor=None if rule == pool_rule == "random" else name,
        stage=stage,
        pool_stage=pool_stage,
        broken=tuple(broken.values()),
    )


def _stage(known: _Known, k: int, rule: str, seed: int, *, what: str, given: Sequence[Sample] = ()) -> Stage:
    """One choice of k among samples; by chance it is the `given` ones, and features only say what each stands for."""
    if k > len(known.samples):
        raise UserError(f"{what} {k} asks for more than the {len(known.samples)} photos that can be read")
    if rule == "random":
        row = {sample: place for place, sample in enumerate(known.samples)}
        indices = [row[sample] for sample in given]
        picks = selection.Picks(tuple(indices), selection.nearest(known.features, indices)[0])
    else:
        try:
            picks = selection.RULES[rule](known.features, k, seed)
        except selection.TooFewDistinct as error:
            raise error.asked_by(what) from error
    return Stage(known.samples, known.features, picks)


def _filled(first: Sequence[Sample], order: Sequence[Sample], *, size: int) -> list[Sample]:
    taken = set(first)
    return [*first, *[sample for sample in order if sample not in taken][: size - len(first)]]


def _by_name(samples: Iterable[Sample]) -> list[Sample]:
    """The order in which rules see samples, so that a choice does not depend on how a folder lists its files."""
    return sorted(samples, key=lambda sample: sample.name)


def _refuse_rules(rule: str, pool_rule: str, *, unpaired: int | None, reader: Reader | None) -> None:
    for option, name in (("--rule", rule), ("--pool-rule", pool_rule)):
        if name not in RULES:
            raise UserError(f"{option} {name}: there is no such rule; there are {', '.join(RULES)}")
        if name != "random" and (reader is None or reader.source is None):
            raise UserError(f"{option} {name} chooses by features: name their extractor")
    if pool_rule != "random" and not unpaired:
        told = "all" if unpaired is None else "0"
        raise UserError(f"--pool-rule {pool_rule} chooses the unpaired pool, but --unpaired is {told}: say how many, as in --unpaired 200")


def _refuse_counts(dataset: Dataset, k: int, unpaired: int | None, *, eligible: int, to_label: bool, option: str) -> None:
    train = len(dataset.samples("train"))
    if k < 0 or (unpaired is not None and unpaired < 0):
        raise UserError(f"{option} {k} --unpaired {unpaired}: neither can be negative")
    if k and not eligible:
        raise UserError(
            f"{option} {k}: no photo of {dataset.place} has a label of the same file name, so there is no pair to choose from; "
            "`fewpair pairs --unlabelled` chooses the photos to label"
        )
    if k > eligible:
        what = "training photos" if to_label else "training samples" if eligible == train else "training pairs"
        raise UserError(f"{option} {k} asks for more than the {eligible} {what} of {dataset.place}")
    if unpaired is not None and unpaired > train:
        raise UserError(
            f"--unpaired {unpaired} asks for more than the {train} training samples of {dataset.place}; `--unpaired all` takes all of them"
        )
    if unpaired and unpaired < k:
        raise UserError(
            f"--unpaired {unpaired} is a smaller pool than the {k} pairs chosen from it: ask for at least {k}, or for 0 (pairs alone)"
        )
