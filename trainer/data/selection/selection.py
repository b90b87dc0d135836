"""A run's training samples: the pairs and the two unpaired pools, and the file pairs.json that keeps them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.data.dataset import Dataset, Sample, Side
from trainer.data.layouts.files import counted, first_of
from trainer.data.remapped import over_classes
from trainer.data.selection.rules import nearest
from trainer.errors import BrokenFile, UserError


@dataclass(frozen=True)
class Picks:
    """Samples with features Float32[N,D], and the rows that a rule picked, by rank."""

    samples: tuple[Sample, ...]
    features: np.ndarray
    indices: tuple[int, ...]
    confidences: tuple[str, ...] = ()
    """For each pick how sure the model is of it; empty where there is no model."""

    @property
    def chosen(self) -> tuple[Sample, ...]:
        """The picked samples, by rank."""
        return tuple(self.samples[index] for index in self.indices)

    @property
    def cluster_sizes(self) -> tuple[int, ...]:
        """For each pick the number of samples that are nearer to it than to another one, itself included."""
        ranks, _ = nearest(self.features, self.indices)
        return tuple(np.bincount(ranks, minlength=len(self.indices)).tolist())


@dataclass(frozen=True)
class Selection:
    """The training samples of a run, all from the split `train`."""

    dataset: Dataset
    pairs: tuple[Sample, ...]
    """In the order of the selection; the label is None while a photo still has to be labelled."""
    unpaired_photos: tuple[Sample, ...]
    unpaired_labels: tuple[Sample, ...]
    rule: str
    pool_rule: str
    seed: int
    features: str | None = None
    """The name of the feature extractor; None where the selection is random."""
    cluster_sizes: tuple[int, ...] | None = None
    """How many photos each pair represents; None where the pairs are random."""
    external: Dataset | None = None
    """The dataset that the unpaired labels come from, over the run's own classes; None: the same dataset."""
    label_map: Mapping[str, str | None] | None = None
    """{class of the external dataset: the run's class, or None for void}; None where both label sides are pictures."""
    picks: Picks | None = field(default=None, compare=False)
    pool_picks: Picks | None = field(default=None, compare=False)
    """How the pairs and the pool lie in the set; None where the features are not known."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What the user should know about how the selection was made or read."""

    @property
    def labels_from(self) -> Dataset:
        """The dataset that reads the unpaired labels."""
        return self.external or self.dataset

    def samples(self) -> dict[str, tuple[Sample, ...]]:
        """The samples by kind, as `Method.reads` names them."""
        return {
            "pairs": self.pairs,
            "unpaired photos": self.unpaired_photos,
            "unpaired label maps": self.unpaired_labels,
        }

    def counted(self) -> str:
        """How many pairs, and how many photos and label maps of the pools beside them."""
        photos = set(self.unpaired_photos) - set(self.pairs)
        return counted(len(self.pairs), len(photos), len(set(self.unpaired_labels) - set(self.pairs)))

    def to_json(self) -> str:
        """The text of pairs.json."""
        pairs = [
            {
                "name": sample.name,
                "photo": sample.photo,
                "label": sample.label,
                "photo_sha256": self.dataset.digest(sample, "photo"),
                "label_sha256": None if sample.label is None else self.dataset.digest(sample, "label"),
            }
            for sample in self.pairs
        ]
        external = None if self.external is None else {"dataset": self.external.name, "label_map": self.label_map}
        content = {
            "format": 1,
            "dataset": self.dataset.name,
            "rule": self.rule,
            "pool_rule": self.pool_rule,
            "features": self.features,
            "seed": self.seed,
            "clusters": self.cluster_sizes,
            "pairs": pairs,
            "unpaired": {
                "photos": [sample.photo for sample in self.unpaired_photos],
                "labels": [sample.label for sample in self.unpaired_labels],
            },
            "borrowed": external,
        }
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(
        cls,
        text: str | bytes,
        dataset: Dataset,
        *,
        source: str = "pairs.json",
        labels_of: Dataset | None = None,
        of_run: bool = False,
    ) -> "Selection":
        """Read a pairs.json and compare it with the dataset; `labels_of` is the dataset of external labels.

        A pair without a label takes the file added under its name. Samples moved to another split leave the selection,
        with a note; they stay where it is that of a run (`of_run`), which has learned from them. There changed files
        and erased labels are noted too. Raises UserError for missing, changed or unlabelled files.
        """
        content = _parsed(text, source=source)
        if content["dataset"] != dataset.name:
            raise UserError(
                f"{source} was made for {content['dataset']}, but the run uses {dataset.name}: run `fewpair pairs` "
                "again"
            )
        external = _external(content, dataset, labels_of, source=source)
        photos, labels = _index(dataset, "photo"), _index(external or dataset, "label")
        pairs: list[Sample] = []
        problems: dict[str, list[str]] = {"missing": [], "changed": []}
        moved: list[str] = []
        for record in content["pairs"]:
            split, sample = _find(photos, record["photo"])
            sides: tuple[Side, ...] = ("photo",) if record["label"] is None else ("photo", "label")
            if sample is None or (split != "train" and _digest(dataset, sample, "photo") != record["photo_sha256"]):
                problems["missing"].append(record["photo"])
            elif split != "train" and not of_run:
                moved.append(record["photo"])
            elif record["label"] is not None and sample.label is None:
                problems["changed" if of_run else "missing"].append(record["label"])
            else:
                pairs.append(sample)
                problems["changed"] += [
                    record[side] for side in sides if _digest(dataset, sample, side) != record[f"{side}_sha256"]
                ]
        pools: dict[str, list[Sample]] = {"photos": [], "labels": []}
        for side, index in (("photos", photos), ("labels", labels)):
            for path in content["unpaired"][side]:
                split, sample = _find(index, path)
                if sample is None:
                    problems["changed" if of_run else "missing"].append(path)
                elif split == "train" or of_run:
                    pools[side].append(sample)
        notes = []
        if of_run and (changed := list(dict.fromkeys(problems.pop("changed")))):
            notes.append(f"{len(changed)} of its files were changed or erased since it began: {first_of(changed)}")
        found = [f"{len(paths)} {word}: {first_of(paths)}" for word, paths in problems.items() if paths]
        if found:
            places = dataset.place if external is None else f"{dataset.place} and {external.place}"
            raise UserError(
                f"{source} does not match {places} ({'; '.join(found)}): restore these files, or run `fewpair pairs` "
                "again"
            )
        unlabelled = [sample.photo or "" for sample in pairs if sample.label is None]
        if unlabelled:
            raise UserError(
                f"{source}: {len(unlabelled)} of its {len(pairs)} pairs have no label map yet; label these photos of "
                f"{dataset.place} and save each label under its photo's name: {first_of(unlabelled)}"
            )
        added = [] if external is not None else _added_labels(dataset, content)
        complete = {sample for sample in dataset.samples("train") if sample.complete}
        if moved:
            notes.append(
                f"{source}: {len(moved)} of its pairs are in another split now and are not trained on: "
                f"{first_of(moved)}"
            )
        if added:
            notes.append(f"{source}: {len(added)} label maps that were added since join the unpaired pool")
        if complete - set(pairs) and any(record["label"] is None for record in content["pairs"]):
            notes.append(
                f"{source} names {len(pairs)} pairs, but {len(complete)} photos of {dataset.place} are labelled: "
                "--pairs all trains on all of them as pairs"
            )
        return cls(
            dataset=dataset,
            pairs=tuple(pairs),
            unpaired_photos=tuple(pools["photos"]),
            unpaired_labels=(*pools["labels"], *added),
            rule=content["rule"],
            pool_rule=content.get("pool_rule", "random"),
            seed=content["seed"],
            features=content.get("features"),
            cluster_sizes=None if content.get("clusters") is None or moved else tuple(content["clusters"]),
            external=external,
            label_map=None if external is None else content["borrowed"]["label_map"],
            notes=tuple(notes),
        )


def external_labels(dataset: Dataset, source: Dataset, mapping: Mapping[str, str | None] | None) -> Dataset:
    """`source` with its labels over the classes of `dataset`."""
    classes = dataset.label_domain.classes
    return source if mapping is None or classes is None else over_classes(source, classes, mapping)


def _parsed(text: str | bytes, *, source: str) -> Mapping[str, Any]:
    fields = {"name", "photo", "label", "photo_sha256", "label_sha256"}
    try:
        content: dict[str, Any] = json.loads(text)
        if content["format"] != 1:
            raise UserError(f"{source} has format {content['format']}, but this version reads format 1")
        sound = {"photos", "labels"} <= set(content["unpaired"]) and {"dataset", "rule", "seed"} <= set(content)
        if not sound or any(set(record) != fields for record in content["pairs"]):
            raise KeyError
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{source} is not a pairs.json of `fewpair pairs`: run it again") from error
    return content


def _external(
    content: Mapping[str, Any], dataset: Dataset, labels_of: Dataset | None, *, source: str
) -> Dataset | None:
    record = content.get("borrowed")
    if record is None:
        return None
    if labels_of is None or labels_of.name != record["dataset"]:
        given = "" if labels_of is None else f", not from {labels_of.name}"
        raise UserError(
            f"{source} takes its unpaired label maps from {record['dataset']}{given}: name their folder with "
            f"--unpaired-labels {record['dataset']}:FOLDER"
        )
    return external_labels(dataset, labels_of, record["label_map"])


def _index(dataset: Dataset, side: Side) -> dict[str, tuple[str, Sample]]:
    """The split and the sample of each path and of each name; those of `train` come before other splits'."""
    splits = [*(split for split in dataset.splits if split != "train"), "train"]
    found = [(split, sample) for split in splits for sample in dataset.samples(split) if sample.path(side)]
    by_path = {sample.path(side) or "": (split, sample) for split, sample in found}
    return {sample.name: (split, sample) for split, sample in found} | by_path


def _find(index: Mapping[str, tuple[str, Sample]], path: str) -> tuple[str, Sample] | tuple[None, None]:
    """By path, else by name: the folder of a split may have been moved (photos/ to train/photos/)."""
    parts = path.rpartition(".")[0].split("/")
    keys = (path, *("/".join(parts[at:]) for at in range(len(parts))))
    return next((index[key] for key in keys if key in index), (None, None))


def _added_labels(dataset: Dataset, content: Mapping[str, Any]) -> list[Sample]:
    """Labels of pool photos that a file with an unpaired pool cannot name, because it was written before them."""
    photos, labels = set(content["unpaired"]["photos"]), set(content["unpaired"]["labels"])
    if not photos or (labels and all(record["label"] for record in content["pairs"])):
        return []
    return [
        sample
        for sample in dataset.samples("train")
        if sample.label is not None
        and sample.label not in labels
        and (sample.photo in photos or (sample.photo is None and not labels))
    ]


def _digest(dataset: Dataset, sample: Sample, side: Side) -> str | None:
    try:
        return dataset.digest(sample, side)
    except BrokenFile:
        return None
