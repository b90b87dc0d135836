"""`fewpair pairs`: select the k photos to label, and show why."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from trainer.commands.arguments import MachineOptions, extractor, opened, parse, refuse_seed, use_threads
from trainer.data.catalogue import CATALOGUE
from trainer.data.selection.choose import Uncertainty, select
from trainer.data.selection.rules import RULES, coverage, random_coverage
from trainer.data.selection.selection import Picks, Selection
from trainer.device import device_named
from trainer.errors import UserError
from trainer.grids import contact_sheet
from trainer.metrics.evaluate import classes_of
from trainer.metrics.judge import open_judge
from trainer.metrics.predict import predict_probabilities
from trainer.run import Count
from trainer.training.checkpointing import load_method

DRAWS = 20
"""Random selections that a selection is compared with."""


@dataclass(frozen=True, kw_only=True)
class PairsOptions(MachineOptions):
    """Options of `fewpair pairs`."""

    data: str
    """The dataset: one of the catalogue."""
    k: int
    """How many photos keep, or get, their label map."""
    out: Path
    """Where to write pairs.json, for `fewpair train --pairs`. Beside it: a contact sheet, and to_label/ with copies of
    the photos to label."""
    root: Path | None = None
    """The dataset's folder; the synthetic scenes have none."""
    unpaired: Count = None
    """How many training samples the unpaired pool holds; the pairs are selected from them."""
    rule: str = "random"
    """random; kmeans-medoid (the medoid of each of k clusters); typical (the densest photo of each, TypiClust); kcenter
    (always the photo farthest from the others)."""
    after: Path | None = None
    """A run, or the folder of an exported segmenter: select photos without a label map that represent many of which it
    is not sure. --rule is ignored."""
    pool_rule: str = "random"
    """How the unpaired pool is selected, by the same names."""
    features: str | None = None
    """What the rules compare: EfficientNet-Lite0 (None), resnet50, a .pth file of its weights, or a .onnx extractor."""
    cache: Path | None = None
    """The folder that keeps the features for the next call; None: `features` beside --out."""
    seed: int = 0
    """Decides the pool and the selection."""
    unlabelled: bool = False
    """Select photos without a label map beside all that have one, to find out which ones to label."""


def pairs(arguments: list[str]) -> int:
    """`fewpair pairs`: select the k photos to label."""
    options = parse(PairsOptions, "pairs", arguments, f"Datasets: {', '.join(CATALOGUE)}. Rules: {', '.join(RULES)}.")
    if options.out.is_dir():
        raise UserError(f"--out {options.out} is a folder: name a file, as in {options.out / 'pairs.json'}")
    sheet_file = options.out.with_name(f"{options.out.stem}-sheet.png")
    copies = options.out.parent / "to_label" / options.out.stem
    for path in (options.out, sheet_file, copies):
        if path.exists():
            raise UserError(f"{path} exists: give another file with --out, or remove it")
    if options.k < 1:
        raise UserError(f"--k {options.k}: give 1 or more")
    refuse_seed(options.seed)
    use_threads(options.threads)
    dataset = opened(options.data, options.root)
    selection = select(
        dataset,
        k=options.k,
        unpaired=options.unpaired,
        rule=options.rule,
        pool_rule=options.pool_rule,
        seed=options.seed,
        unlabelled=options.unlabelled or options.after is not None,
        uncertainty=None if options.after is None else _uncertainty(options.after, options.device),
        # a random selection is measured too where an extractor is named
        features=extractor(
            [options.rule, options.pool_rule],
            options.features,
            device=options.device,
            measure=options.features is not None or options.after is not None,
        ),
        cache=options.cache or options.out.parent / "features",
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picks = selection.picks
    total = 0 if picks is None else len(picks.samples)
    sizes = () if picks is None else picks.cluster_sizes
    shares = [f"represents {size} of {total} ({100 * size / total:.1f} %)" for size in sizes]
    shares = shares or [""] * len(selection.pairs)
    confidences = (picks.confidences if picks else ()) or [""] * len(selection.pairs)
    _write_sheet(sheet_file, selection, shares)
    options.out.write_text(selection.to_json())
    for note in selection.notes:
        print(note)
    for rank, (sample, *reasons) in enumerate(zip(selection.pairs, shares, confidences, strict=True), 1):
        why = "; ".join(filter(None, reasons))
        print(f"{rank:>4}  {sample.photo}  {why}".rstrip() + ("" if sample.label else "  (to be labelled)"))
    if selection.pool_picks:
        print(f"pool: {_quality(selection.pool_picks)}")
    print(_quality(picks) if picks else "selected at random; --rule kmeans-medoid selects photos that cover the set")
    to_label = [sample.photo or "" for sample in selection.pairs if sample.label is None]
    print(f"{dataset.place}: {selection.counted()}{', once these are labelled' if to_label else ''}")
    print(f"wrote {options.out} for `fewpair train --pairs`, and the contact sheet {sheet_file}")
    if to_label:
        for photo in to_label:
            (copies / photo).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2((dataset.root or Path()) / photo, copies / photo)
        first, root = to_label[0], dataset.root or Path()
        place = Path(re.sub(r"\bphoto(s?)/", r"label\1/", first, count=1)).with_suffix(".png")
        where = "" if place.parent == Path(first).parent else f", as {root / place} for {root / first}"
        print(f"Copies of the photos to label are in {copies}.")
        print(
            f"Next: fewpair import EXPORT --out {options.root} reads what a labelling tool exports; or save the label "
            f"map of each photo marked above under its name{where}. Then: fewpair train --data "
            f"{options.data} --root {options.root} --pairs {options.out} --out RUN"
        )
    return 0


def _uncertainty(model: Path, device: str) -> Uncertainty:
    """How unsure a run, or an exported model, is of a photo."""
    if (model / "manifest.json").is_file():
        judge = open_judge(model, None, device=device_named(device))
        if not judge.has_confidence:
            raise UserError(f"--after {model}: it gives no confidence: name the run of a segmenter, or another export")
        names, read = judge.classes.names, judge.label_and_confidence
    else:
        method, run, _ = load_method(model)
        names = classes_of(method.label_domain).names

        def read(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = predict_probabilities(method, photo, size=run.size, device=device_named(device))
            return found.argmax(0), found.max(0) * 255

    def uncertainty(photo: np.ndarray) -> tuple[float, str]:
        indices, confidence = read(photo)
        unsure = 1 - confidence.ravel() / 255
        return float(unsure.mean()), names[np.bincount(indices.ravel(), unsure).argmax()]

    return uncertainty


def _write_sheet(path: Path, selection: Selection, shares: list[str]) -> None:
    by_rule = f"by {selection.rule} (seed {selection.seed}, {selection.features})"
    how = "at random" if selection.rule == "random" else by_rule
    photos = (selection.dataset.read_photo(sample) for sample in selection.pairs)
    names = [Path(sample.photo or "").name for sample in selection.pairs]
    title = f"{len(selection.pairs)} photos of {selection.dataset.name}, selected {how}"
    contact_sheet(photos, names, shares, title=title).save(path)


def _quality(picks: Picks) -> str:
    """How well the picks cover the set, compared with random picks."""
    reached, k = coverage(picks.features, picks.indices), len(picks.indices)
    drawn = random_coverage(picks.features, k, draws=DRAWS)
    word = "better than" if reached < median(drawn) else "no better than"
    return (
        f"{k} photos cover the {len(picks.samples)} {word} the median of {DRAWS} random selections: mean distance to "
        f"the nearest selected photo {reached:.4g}; random {median(drawn):.4g} ({drawn[0]:.4g} to {drawn[-1]:.4g})"
    )
