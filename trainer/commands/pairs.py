"""`fewpair pairs`: choose which k photos to label, and show why."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import tyro

from trainer.commands.arguments import count, extractor, opened, parse, refuse_seed, use_threads
from trainer.data.catalogue import CATALOGUE, Dataset, Sample
from trainer.data.choice import RULES, Choice, Reader, Stage, choose
from trainer.data.layouts.files import number_of
from trainer.data.pairs import Selection, selection_of
from trainer.data.selection import coverage, random_coverage
from trainer.errors import UserError

LABELS_OF = {"photos": "labels", "photo": "label"}
"""The folder of the label maps beside a folder of photos, in the layouts that a person fills."""
DRAWS = 20
"""Random choices of the same size that a choice is compared with."""


@dataclass(frozen=True)
class PairsOptions:
    """What `fewpair pairs` takes."""

    data: str
    """The dataset: one of the catalogue."""
    k: Annotated[int, tyro.conf.arg(aliases=["--pairs"])]
    """How many photos keep, or get, their label map."""
    out: Path
    """Where to write pairs.json, for `fewpair train --pairs`; a contact sheet and a map of the set are written beside it."""
    root: Path | None = None
    """The dataset's folder; the built-in scenes have none."""
    unpaired: int | Literal["all"] = "all"
    """How many training samples the unpaired pool holds; the pairs are chosen among them."""
    rule: str = "random"
    """How the pairs are chosen: random; kmeans-medoid (the hybrid paper's: the medoid of each of k clusters); kcenter (always the photo
    farthest from those chosen); pam (true k-medoids, up to 16000 photos)."""
    pool_rule: str = "random"
    """How the unpaired pool is chosen, by the same names."""
    features: Path | None = None
    """What the rules look at: a .onnx extractor or a state dict of torchvision's resnet50; None: torchvision's ResNet-50, fetched once."""
    cache: Path | None = None
    """The folder that keeps the features, so that an interrupted or repeated call goes on from there; None: `features` beside --out."""
    seed: int = 0
    """Decides the pool and the choice."""
    unlabelled: bool = False
    """Also choose photos that have no label map yet, to find out which ones to label."""
    skip_broken: bool = False
    """Go on past photos that cannot be read, and name them."""
    device: str = "auto"
    """Where features are computed: auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads; None: as many as torch chooses."""


def pairs(arguments: list[str]) -> int:
    """`fewpair pairs`: choose which k photos to label."""
    asked = parse(PairsOptions, "pairs", arguments, f"Datasets: {', '.join(CATALOGUE)}. Rules: {', '.join(RULES)}.")
    sheet_file, map_file = (asked.out.with_name(f"{asked.out.stem}-{what}.png") for what in ("sheet", "map"))
    for path in (asked.out, sheet_file, map_file):
        if path.exists():
            raise UserError(f"{path} exists: name another file with --out, or remove it")
    option = next((word for word in arguments if word.partition("=")[0] == "--pairs"), "--k").partition("=")[0]  # one thing by two names
    if asked.k < 1:
        raise UserError(f"{option} {asked.k}: give 1 or more")
    refuse_seed(asked.seed)
    use_threads(asked.threads)
    dataset = opened(asked.data, asked.root)
    rules = [asked.rule, asked.pool_rule] if asked.features is None else RULES  # a random choice is measured where an extractor is named
    choice = choose(
        dataset,
        k=asked.k,
        unpaired=count(asked.unpaired),
        rule=asked.rule,
        pool_rule=asked.pool_rule,
        seed=asked.seed,
        to_label=asked.unlabelled,
        option=option,
        reader=Reader(  # not kept: beside the features of a large set there is better use for the network's memory
            dataset,
            extractor(rules, asked.features, device=asked.device),
            cache=asked.cache or asked.out.parent / "features",
            progress=True,
            skip_broken=asked.skip_broken,
        ),
    )
    selection = selection_of(dataset, choice)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    covers = _covers(choice.stage) if choice.stage else None
    written = _pictures(dataset, choice, sheet_file, map_file, covers=covers)
    asked.out.write_text(selection.to_json())
    _tell(asked.out, dataset, choice, selection, covers=covers, written=written, option=option)
    return 0


def _pictures(dataset: Dataset, choice: Choice, sheet_file: Path, map_file: Path, *, covers: str | None) -> list[Path]:
    """The contact sheet, and the map where the features are known."""
    from trainer.data.contact_sheet import contact_sheet  # both import matplotlib, which takes a second
    from trainer.data.set_map import set_map

    title = _title(dataset, choice)
    sheet = contact_sheet(
        (dataset.read_photo(sample) for sample in choice.pairs),
        [Path(sample.photo or "").name for sample in choice.pairs],
        [""] * len(choice.pairs) if choice.stage is None else _shares(choice.stage),
        title=title,
    )
    sheet.save(sheet_file)
    if choice.stage is None:
        return [sheet_file]
    set_map(choice.stage.features, choice.stage.picks, title=title, notes=[covers or ""]).save(map_file)
    return [sheet_file, map_file]


def _tell(
    out: Path, dataset: Dataset, choice: Choice, selection: Selection, *, covers: str | None, written: Iterable[Path], option: str
) -> None:
    for reason in choice.broken:
        print(f"skipped: {reason}")
    shares = ["" for _ in choice.pairs] if choice.stage is None else [f"  {share}" for share in _shares(choice.stage)]
    for rank, (entry, share) in enumerate(zip(selection.pairs, shares, strict=True), 1):
        print(f"{rank:>4}  {entry.photo}{share}" + ("" if entry.label else "  (to be labelled)"))
    if choice.pool_stage:
        print(f"the pool: {_covers(choice.pool_stage)}")
    if choice.stage:
        print(covers)
        near = choice.stage.near_duplicates()
        if near:
            told = ", ".join(f"{one.photo} and {other.photo}" for one, other in near[:5]) + (" and others" if near[5:] else "")
            print(f"near-duplicates among the picks: {told}. A smaller {option}, or a set without duplicates, wastes less labelling")
    else:
        print("chosen by chance; --rule kmeans-medoid chooses photos that cover the set, and shows how well")
    unpaired = number_of(len(selection.unpaired_photos), "photo"), number_of(len(selection.unpaired_labels), "label map")
    files = ", ".join(map(str, [out, *written]))
    counts = f"{number_of(len(selection.pairs), 'pair')}, {' and '.join(unpaired)} unpaired"
    print(f"{counts}, of {dataset.place}: written to {files}")
    marked = [entry.photo for entry in selection.pairs if entry.label is None]
    if marked:
        print(
            f"Next: save the label map of each photo marked above under its name{_where(dataset, marked[0])}; "
            f"then: fewpair train RECIPE --pairs {out} ..."
        )


def _where(dataset: Dataset, photo: str) -> str:
    """The folder that the label map of a photo is looked for in, where the layout has one beside the photos'."""
    parts = Path(photo).parts
    place = next((place for place, part in enumerate(parts[:-1]) if part in LABELS_OF), None)
    if dataset.root is None or place is None:
        return ""
    photos, labels = (dataset.root.joinpath(*parts[:place], folder) for folder in (parts[place], LABELS_OF[parts[place]]))
    return f", as {labels}/NAME.png for {photos}/NAME{Path(photo).suffix}"


def _title(dataset: Dataset, choice: Choice) -> str:
    size = len(_set_of(dataset, choice))
    how = "at random" if choice.rule == "random" else f"by {choice.rule} (seed {choice.seed}, {choice.extractor})"
    return f"{len(choice.pairs)} of {size} photos of {dataset.name}, chosen {how}"


def _set_of(dataset: Dataset, choice: Choice) -> tuple[Sample, ...]:
    """The samples that the pairs were chosen among."""
    return choice.stage.samples if choice.stage else choice.pool or dataset.samples("train")


def _shares(stage: Stage) -> list[str]:
    total = len(stage.samples)
    return [f"stands for {size} of {total} ({100 * size / total:.1f} %)" for size in stage.picks.cluster_sizes]


def _covers(stage: Stage) -> str:
    """How well the picks cover the set, beside random picks."""
    reached = coverage(stage.features, stage.picks.indices)
    drawn = random_coverage(stage.features, len(stage.picks.indices), draws=DRAWS)
    word = "better than" if reached < median(drawn) else "no better than"
    return (
        f"{len(stage.picks.indices)} picks cover {len(stage.samples)} photos {word} the median of {DRAWS} random draws: "
        f"mean distance to the nearest pick {reached:.4g}; at random {median(drawn):.4g} ({drawn[0]:.4g} to {drawn[-1]:.4g})"
    )
