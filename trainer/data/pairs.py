"""Which k samples keep their pairing, what stays unpaired, and the pairs.json that says so."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.data.catalogue import Dataset, Sample, Side
from trainer.data.choice import RULES as RULES
from trainer.data.choice import Choice, Reader, choose
from trainer.data.decode import BrokenFile
from trainer.data.loader import Streams
from trainer.data.views import translated
from trainer.errors import UserError

if TYPE_CHECKING:
    from trainer.data.featurecache import KnownFeatures
    from trainer.data.features import FeatureSource


@dataclass(frozen=True)
class Entry:
    """One chosen pair; the label is None while the photo still waits for its label map."""

    name: str
    photo: str
    label: str | None
    photo_sha256: str
    label_sha256: str | None


@dataclass(frozen=True)
class Borrowed:
    """The dataset whose label maps are the unpaired ones, and what its classes become."""

    dataset: str
    label_map: Mapping[str, str | None] | None
    """{its class: the run's class, or None for void}; None where both label sides are pictures."""


@dataclass(frozen=True)
class Selection:
    """The pairs and the two unpaired pools of a run, as paths relative to the dataset's root."""

    dataset: str
    rule: str
    seed: int
    pairs: tuple[Entry, ...]
    unpaired_photos: tuple[str, ...]
    unpaired_labels: tuple[str, ...]
    pool_rule: str = "random"
    """How the unpaired pool was chosen."""
    features: str | None = None
    """The name of the feature extractor; None where none was asked."""
    clusters: tuple[int, ...] | None = None
    """How many photos of the set each pair stands for, in the order of the pairs; None where chance chose them."""
    borrowed: Borrowed | None = None
    """Where the unpaired label maps come from, if not from the dataset; their paths are relative to that one's root."""
    source: Dataset | None = field(default=None, compare=False, repr=False)
    """The same, opened."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What a person should know of how the file was read."""

    def streams(self, dataset: Dataset) -> Streams:
        """The same as samples of the dataset, for the loader; every pair must have its label."""
        _refuse_unlabelled(dataset, [entry.photo for entry in self.pairs if entry.label is None], total=len(self.pairs))
        photos, labels = _by_path(dataset, "photo"), _by_path(self.source or dataset, "label")
        return Streams(
            pairs=tuple(Sample(entry.name, entry.photo, entry.label) for entry in self.pairs),
            photos=tuple(photos[path] for path in self.unpaired_photos),
            labels=tuple(labels[path] for path in self.unpaired_labels),
            labels_from=self._labels_from(dataset),
        )

    def _labels_from(self, dataset: Dataset) -> Dataset | None:
        """The source of the unpaired label maps, over the dataset's own classes."""
        classes = dataset.label_domain.classes
        if self.borrowed is None or self.source is None:
            return None
        if self.borrowed.label_map is None or classes is None:
            return self.source
        return translated(self.source, classes, self.borrowed.label_map)

    def to_json(self) -> str:
        """The text of pairs.json."""
        content = {
            "format": 1,
            "dataset": self.dataset,
            "rule": self.rule,
            "pool_rule": self.pool_rule,
            "features": self.features,
            "seed": self.seed,
            "clusters": None if self.clusters is None else list(self.clusters),
            "pairs": [asdict(entry) for entry in self.pairs],
            "unpaired": {"photos": list(self.unpaired_photos), "labels": list(self.unpaired_labels)},
            "borrowed": None if self.borrowed is None else asdict(self.borrowed),
        }
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, dataset: Dataset, *, source: str = "pairs.json", labels_of: Dataset | None = None) -> "Selection":
        """The selection written in a pairs.json, each file compared with the dataset; what moved or changed is named.

        A pair written without a label takes the label file that has appeared since under its name. Where the file was written before
        the labels were, those that have appeared since join the unpaired pool as well, unless their photo lies outside the pool.
        `labels_of` is the dataset that the file's unpaired label maps come from, if not from `dataset`.
        """
        content = _parsed(text, source=source)
        if content["dataset"] != dataset.name:
            raise UserError(
                f"{source} was made for {content['dataset']}, but the run uses {dataset.name}: choose pairs anew with `fewpair pairs`"
            )
        borrowed = _borrowed(content, labels_of, source=source)
        photos, labels = _by_path(dataset, "photo"), _by_path(dataset, "label")
        entries: list[Entry] = []
        unlabelled: list[str] = []
        missing: list[str] = []
        changed: list[str] = []
        for record in content["pairs"]:
            entry = Entry(**record)
            known = photos.get(entry.photo)
            if entry.label is None and known is not None and known.label is not None:
                entry = Entry(entry.name, entry.photo, known.label, entry.photo_sha256, dataset.digest(known, "label"))
            if entry.label is None:
                unlabelled.append(entry.photo)
            sides: tuple[tuple[Side, str | None, str | None], ...] = (
                ("photo", entry.photo, entry.photo_sha256),
                ("label", entry.label, entry.label_sha256),
            )
            for side, path, sha256 in sides:
                if path is not None:
                    found = _digest(dataset, (photos if side == "photo" else labels).get(path), side)
                    if found != sha256:
                        (missing if found is None else changed).append(path)
            entries.append(entry)
        pools = content["unpaired"]
        lent = labels if borrowed is None or labels_of is None else _by_path(labels_of, "label")
        missing += [path for path in pools["photos"] if path not in photos] + [path for path in pools["labels"] if path not in lent]
        if missing or changed:
            told = [f"{len(paths)} {word}: {_first(paths)}" for word, paths in (("missing", missing), ("changed", changed)) if paths]
            places = dataset.place if borrowed is None or labels_of is None else f"{dataset.place} and {labels_of.place}"
            raise UserError(f"{source} does not match {places} ({'; '.join(told)}): put them back, or choose anew with `fewpair pairs`")
        _refuse_unlabelled(dataset, unlabelled, total=len(entries), source=source)
        appeared = [] if borrowed is not None else _appeared(dataset, content)
        note = (
            f"{source}: its {len(entries)} pairs have their label maps; "
            f"{len(appeared)} label maps that have appeared since it was written join the unpaired pool"
        )
        return cls(
            dataset=content["dataset"],
            rule=content["rule"],
            seed=content["seed"],
            pairs=tuple(entries),
            unpaired_photos=tuple(pools["photos"]),
            unpaired_labels=(*pools["labels"], *appeared),
            pool_rule=content.get("pool_rule", "random"),
            features=content.get("features"),
            clusters=None if content.get("clusters") is None else tuple(content["clusters"]),
            borrowed=borrowed,
            source=None if borrowed is None else labels_of,
            notes=(note,) if appeared else (),
        )


def select(
    dataset: Dataset,
    *,
    k: int | Literal["all"],
    unpaired: int | None,
    rule: str = "random",
    seed: int,
    to_label: bool = False,
    pool_rule: str = "random",
    features: "FeatureSource | KnownFeatures | None" = None,
    cache: Path | None = None,
    progress: bool = False,
    skip_broken: bool = False,
) -> Selection:
    """Choose k pairs of `train` inside a pool of `unpaired` samples (all if None): the pool feeds the unpaired streams.

    k "all" keeps every pair of `train`, or as many as the pool holds.

    With `unpaired=0` there is no pool and the pairs come from all of `train`. The same seed names the same random pairs
    whatever the size of the pool, so that methods compare. With `to_label` photos that have no label yet may be chosen too.
    `pool_rule` chooses the pool from all photos, `rule` the pairs from the pool; the features that either looks at are kept in `cache`.
    """
    every = sum(sample.complete for sample in dataset.samples("train"))
    wanted = min(every, unpaired or every) if k == "all" else k
    rule = "random" if k == "all" else rule  # every pair is kept: there is nothing to choose
    looks = features is not None and (rule, pool_rule) != ("random", "random")
    reader = Reader(dataset, features, cache=cache, progress=progress, skip_broken=skip_broken) if looks and features else None
    choice = choose(dataset, k=wanted, unpaired=unpaired, rule=rule, seed=seed, pool_rule=pool_rule, to_label=to_label, reader=reader)
    return selection_of(dataset, choice)


def selection_of(dataset: Dataset, choice: Choice) -> Selection:
    """A choice as paths and digests."""
    return Selection(
        dataset=dataset.name,
        rule=choice.rule,
        seed=choice.seed,
        pairs=tuple(_entry(dataset, sample) for sample in choice.pairs),
        unpaired_photos=tuple(sample.photo for sample in choice.pool if sample.photo is not None),
        unpaired_labels=tuple(sample.label for sample in choice.pool if sample.label is not None),
        pool_rule=choice.pool_rule,
        features=choice.extractor,
        clusters=choice.stage.picks.cluster_sizes if choice.stage and choice.rule != "random" else None,
        notes=tuple(f"skipped: {reason}" for reason in choice.broken),
    )


def _entry(dataset: Dataset, sample: Sample) -> Entry:
    return Entry(
        name=sample.name,
        photo=sample.photo or "",
        label=sample.label,
        photo_sha256=dataset.digest(sample, "photo"),
        label_sha256=None if sample.label is None else dataset.digest(sample, "label"),
    )


def _by_path(dataset: Dataset, side: Side) -> dict[str, Sample]:
    """Every sample of the training split under the path of one of its sides."""
    paths = ((sample.photo if side == "photo" else sample.label, sample) for sample in dataset.samples("train"))
    return {path: sample for path, sample in paths if path is not None}


def _parsed(text: str, *, source: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
        if content["format"] != 1:
            raise UserError(f"{source} has format {content['format']}, but this version reads format 1")
        fields = set(Entry.__dataclass_fields__)
        sound = all(set(record) == fields for record in content["pairs"]) and {"photos", "labels"} <= set(content["unpaired"])
        if not sound or not {"dataset", "rule", "seed"} <= set(content):
            raise KeyError
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{source} is not a pairs.json as `fewpair pairs` writes it: choose pairs anew") from error
    return dict(content)


def _borrowed(content: Mapping[str, Any], labels_of: Dataset | None, *, source: str) -> Borrowed | None:
    """Where the file says that its unpaired label maps come from. Raises UserError where that is not what was opened."""
    record = content.get("borrowed")
    if record is None:
        return None
    if labels_of is None or labels_of.name != record["dataset"]:
        given = "" if labels_of is None else f", not from {labels_of.name}"
        raise UserError(
            f"{source} takes its unpaired label maps from {record['dataset']}{given}: say where they lie with "
            f"--unpaired-labels {record['dataset']}:FOLDER"
        )
    return Borrowed(record["dataset"], record["label_map"])


def _appeared(dataset: Dataset, content: Mapping[str, Any]) -> list[str]:
    """The label maps that a file written before them, and with an unpaired pool, cannot name."""
    photos, labels = set(content["unpaired"]["photos"]), set(content["unpaired"]["labels"])
    if not photos or (labels and all(record["label"] for record in content["pairs"])):
        return []
    return [
        sample.label
        for sample in dataset.samples("train")
        if sample.label is not None and sample.label not in labels and (sample.photo in photos or (sample.photo is None and not labels))
    ]


def _digest(dataset: Dataset, sample: Sample | None, side: Side) -> str | None:
    """The sha256 of one side; None where there is no such file."""
    try:
        return None if sample is None else dataset.digest(sample, side)
    except BrokenFile:
        return None


def _refuse_unlabelled(dataset: Dataset, photos: Sequence[str], *, total: int, source: str = "the selection") -> None:
    if photos:
        raise UserError(
            f"{source}: {len(photos)} of its {total} pairs have no label map yet; label these photos of {dataset.place} "
            f"and save each label under its photo's name: {_first(photos)}"
        )


def _first(paths: Sequence[str]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
