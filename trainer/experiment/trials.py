"""From a row of a table to the runs behind it: what each one trains on, and the key of what decides its result."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.borrowed import borrow, spelling
from trainer.data.dataset import Dataset
from trainer.data.featurecache import KnownFeatures
from trainer.data.features import FeatureSource
from trainer.data.pairs import RULES, Selection, select
from trainer.errors import UserError
from trainer.experiment.tables import Row, Setting, Table
from trainer.loop import refuse_unbalanced
from trainer.methods import METHODS
from trainer.recipes import Run
from trainer.rundir import build_method

NO_INFLUENCE = frozenset(
    (
        "recipe",
        "expected",
        "root",
        "features",
        "rule",
        "pool_rule",
        "pairs",
        "unpaired",
        "unpaired_labels",
        "save_every",
        "log_every",
        "keep",
    )
)
"""Fields of a Run that its result does not follow from: names, places, how often is saved. What was selected is hashed itself."""


@dataclass(frozen=True)
class Material:
    """What the command line gives to a table's runs: where the data lies, and what the rules look at."""

    dataset: Dataset
    root: Path | None
    features: FeatureSource | KnownFeatures | None = None
    features_path: Path | None = None
    label_sources: Mapping[str, Dataset] = field(default_factory=dict)
    """For each name that a row may give as its `unpaired_labels`: the dataset whose label maps it takes."""
    label_maps: Mapping[str, Path] = field(default_factory=dict)
    """For such a name the file that maps its classes to the run's, where they differ by name."""
    vgg: Path | None = None
    """VGG-19's weights for the methods with a perceptual loss; None: torchvision's."""
    cache: Path | None = None
    """The folder that features are kept in, so that none is computed twice."""
    skip_broken: bool = False
    """Choose among the photos that can be read, where a rule looks at them."""


@dataclass(frozen=True)
class Trial:
    """One run of a row: the row with the seed `repeat`."""

    table: str
    setting: str
    row: Row
    repeat: int
    run: Run
    selection: Selection
    key: str
    """The hash of what decides the result, so that equal runs of several tables are run once."""
    spec: str
    """The hash of what the table asks of the row."""
    reads: tuple[str, ...] = ("pairs", "unpaired")
    """Which halves of the Batch the method looks at."""

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f"{self.row.name} #{self.repeat}"


def plan(table: Table, setting: Setting, rows: Sequence[Row], material: Material, *, repeats: int | None = None) -> list[Trial]:
    """Every run of the rows, each row once before any is repeated. Raises UserError on a row that this version cannot run."""
    counts = {row.name: repeats or setting.repeats_of(row) for row in rows}
    for row in rows:
        _refuse_unknown(table, row, material)
    reads: dict[str, tuple[str, ...]] = {}
    trials = [
        trial(table, setting, row, repeat, material)
        for repeat in range(max(counts.values(), default=0))
        for row in rows
        if repeat < counts[row.name]
    ]
    for each in trials:
        if each.row.name not in reads:
            reads[each.row.name] = _reads(each, material.dataset)
    return [dataclasses.replace(each, reads=reads[each.row.name]) for each in trials]


def trial(table: Table, setting: Setting, row: Row, repeat: int, material: Material) -> Trial:
    """The row's run with the seed `repeat`; its pairs are chosen here."""
    try:
        selection = _selection(row, repeat, material)
    except UserError as error:
        raise UserError(f"{table.name}, row {row.name}: {error}") from error
    steps = round(setting.steps * row.steps_factor)
    run = Run(
        recipe=f"{table.name}/{row.name}",
        method=row.method,
        config=_with_vgg(config_of(table, setting, row), material.vgg),
        data=material.dataset.name,
        root=None if material.root is None else str(material.root.resolve()),
        pairs=len(selection.pairs),
        unpaired=max(len(selection.unpaired_photos), len(selection.unpaired_labels)),
        size=setting.size,
        steps=steps,
        seed=repeat,
        batch=setting.batch,
        balanced=row.balanced,
        rule=selection.rule,
        pool_rule=selection.pool_rule,
        features=None if material.features_path is None else str(material.features_path.resolve()),
        unpaired_labels=None if row.unpaired_labels is None else spelling(material.label_sources[row.unpaired_labels]),
        evaluate_every=max(1, steps // setting.validations),
        save_every=min(200, max(1, steps // 2)),
    )
    return Trial(table.name, setting.name, row, repeat, run, selection, key_of(run, selection), spec_of(setting, row))


def config_of(table: Table, setting: Setting, row: Row) -> Any:
    """The method's config: its defaults, the setting's choices for the method, the row's own."""
    kind = METHODS[row.method].config_class
    known = [each.name for each in dataclasses.fields(kind)]
    values = {**setting.config.get(row.method, {}), **row.config}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"{table.name}, row {row.name}: {row.method} has no choice called {name}" + (f"; did you mean {near[0]}?" if near else "")
            )
    return kind(**values)


def key_of(run: Run, selection: Selection) -> str:
    """sha256, in hex, of what decides a run's result: what the run asks beyond the defaults, and the files it learns from.

    A choice that a later version adds, and whose default changes nothing, leaves the keys of earlier results as they are.
    """
    decided = {name: value for name, value in _asked(run).items() if name not in NO_INFLUENCE}
    decided["config"] = _asked(run.config) | _contents_of_vgg(run.config)
    decided["pairs"] = [[each.photo_sha256, each.label_sha256] for each in selection.pairs]
    decided["unpaired"] = [list(selection.unpaired_photos), list(selection.unpaired_labels)]
    decided["borrowed"] = None if selection.borrowed is None else dataclasses.asdict(selection.borrowed)
    return _hash(decided)


def spec_of(setting: Setting, row: Row) -> str:
    """sha256, in hex, of what the table asks of a row: a result made from another version of the row is known by it."""
    asked = {name: value for name, value in dataclasses.asdict(row).items() if name in ASKED_OF_A_ROW}
    scale = {name: getattr(setting, name) for name in ("data", "size", "steps", "batch")}
    return _hash([asked, scale, setting.config.get(row.method, {})])


ASKED_OF_A_ROW = ("method", "pairs", "unpaired", "rule", "pool_rule", "unpaired_labels", "balanced", "config", "steps_factor")


def _selection(row: Row, seed: int, material: Material) -> Selection:
    """The row's pairs and pools with this seed."""
    dataset, count = material.dataset, None if row.unpaired == "all" else row.unpaired
    selection = select(
        dataset,
        k=row.pairs,
        unpaired=count,
        rule=row.rule or "random",
        pool_rule=row.pool_rule,
        seed=seed,
        features=material.features,
        cache=material.cache,
        progress=True,
        skip_broken=material.skip_broken,
    )
    if row.unpaired_labels is None:
        return selection
    source = material.label_sources[row.unpaired_labels]
    return borrow(selection, dataset, source, label_map=material.label_maps.get(row.unpaired_labels), count=count)


def _with_vgg(config: Any, path: Path | None) -> Any:
    """The config with its perceptual loss's weights from this file, where it has such a loss."""
    looks = path is not None and getattr(config, "perceptual", None) and config.vgg is None
    return dataclasses.replace(config, vgg=str(path.resolve())) if looks and path is not None else config


def _contents_of_vgg(config: Any) -> dict[str, str]:
    """The weights by what they are, not by where they lie."""
    given = getattr(config, "vgg", None)
    return {} if given is None else {"vgg": hashlib.sha256(Path(given).read_bytes()).hexdigest()}


def _refuse_unknown(table: Table, row: Row, material: Material) -> None:
    where = f"{table.name}, row {row.name}"
    if row.method not in METHODS:
        raise UserError(
            f"{where}: this version of fewpair has no method {row.method}; it has {', '.join(METHODS)}; leave the row out with --rows"
        )
    for rule in (row.rule or "random", row.pool_rule):
        if rule not in RULES:
            raise UserError(f"{where}: there is no rule {rule}; there are {', '.join(RULES)}")
    if row.unpaired_labels is not None and row.unpaired_labels not in material.label_sources:
        raise UserError(
            f"{where} takes its unpaired label maps from {row.unpaired_labels}: give "
            f"--unpaired-labels {row.unpaired_labels}=DATASET:FOLDER, or leave the row out with --rows"
        )


def _reads(trial: Trial, dataset: Dataset) -> tuple[str, ...]:
    """What the run's method needs. Raises UserError, before anything is run, where the method cannot take the row as it is."""
    run, where = trial.run, f"{trial.table}, row {trial.row.name}"
    try:
        method = build_method(run, dataset.photo_domain, dataset.label_domain)
        refuse_unbalanced(run)
        method.check_steps(run.steps)
    except (ValueError, UserError) as error:
        raise UserError(f"{where}: {error}") from error
    height, width = run.size
    if height % method.multiple_of or width % method.multiple_of or min(run.size) < method.smallest:
        raise UserError(
            f"{where}: {height}x{width} does not suit {run.method}: sides must be multiples of {method.multiple_of}, "
            f"and {method.smallest} or more"
        )
    if "pairs" in method.needs() and not run.pairs:
        raise UserError(f"{where}: {run.method} learns from pairs, and the row has none")
    if "unpaired" in method.needs() and not (trial.selection.unpaired_photos and trial.selection.unpaired_labels):
        raise UserError(f"{where}: {run.method} learns from unpaired photos and label maps, and {dataset.place} has none for the row")
    return tuple(sorted(method.needs()))


def _asked(choices: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults."""
    values = {each.name: (getattr(choices, each.name), each.default) for each in dataclasses.fields(choices)}
    return {name: value for name, (value, default) in values.items() if value != default}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
