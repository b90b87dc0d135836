"""`python -m serving predict`: run one model over a file or a folder, here or on a server."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from serving.answers import Synthesis, check_output, encode_photos, encode_segmentation, see
from serving.asked import MOST_AREA, PHOTO_FORMATS, SEEDS, SEGMENT_OUTPUTS, SegmentOptions
from serving.batch import clean_name
from serving.client import Client
from serving.errors import Refusal, ServingError
from serving.imaging import Bytes, Limits, read_photo
from serving.manifest import DIRECTIONS, DirectionName
from serving.misspelt import parsed
from serving.palette import read_label
from serving.remedies import COMMAND, in_words
from serving.settings import DEVICES, PIXELS_CEILING, default_models_folder
from serving.tiles import Mosaic, Tiles, check_tiles, cut, plan
from serving.translator import RUN_FAILURES, ExportedModel, load_model

Translate = Callable[[Path], bytes]
_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
_PATIENCE = 120.0  # seconds in which a server that is full is asked again for the same picture
_LIMITS = Limits(max_bytes=2**31, max_pixels=PIXELS_CEILING)  # one's own files, one at a time


def predict(argv: Sequence[str]) -> int:
    """0 where every file was translated, 1 where some were not (they are named at the end)."""
    asked = parsed(_parser(), argv)
    files = _inputs(asked.input, asked.out)
    if asked.server:
        classes = f"{asked.server.rstrip('/')}/v1/models/{asked.model}/legend"
        with Client(asked.server, token=os.environ.get("FEWPAIR_TOKEN"), patience=_PATIENCE) as client, _our_words(classes):
            failures = _translate_all(files, asked, _on_server(asked, client), classes=classes)
    else:
        folder = _folder(asked)
        classes = str(folder / "manifest.json")
        with _our_words(classes):
            failures = _translate_all(files, asked, _here(asked, folder), classes=classes)
    print(f"{len(files) - len(failures)} of {len(files)} files are in {asked.out}")
    for file, why in failures:
        print(f"{file}: {why}", file=sys.stderr)
    return 1 if failures else 0


@contextlib.contextmanager
def _our_words(classes: str) -> Iterator[None]:
    """Say what to do about a refusal in flags; `classes` is where the model's classes and their colours are told."""
    try:
        yield
    except Refusal as refusal:
        raise in_words(refusal, COMMAND, classes=classes) from None


def _translate_all(files: Sequence[Path], asked: argparse.Namespace, translate: Translate, *, classes: str) -> list[tuple[Path, str]]:
    """Write each file's answer; what could not be translated comes back with its reason."""
    failures: list[tuple[Path, str]] = []
    taken = {file.resolve() for file in files}
    for file in tqdm(files, unit="file", disable=None):
        inside = file.relative_to(asked.input) if asked.input.is_dir() else Path(file.name)
        try:
            with _our_words(classes):
                translated = translate(file)
            target = _target(asked.out / inside, _ending(translated), taken=taken)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(translated)
        except Refusal as refusal:
            if refusal.code == "unreachable":
                raise
            failures.append((file, str(refusal)))
        except OSError as error:
            failures.append((file, str(error)))
        except RUN_FAILURES as error:  # a picture too large for the machine, for one
            failures.append((file, f"the model could not be run on it: {type(error).__name__}: {error}".strip(": ")))
    return failures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fewpair predict", description="Run an exported model over a photo, a label map, or a folder of them."
    )
    parser.add_argument("model", metavar="MODEL", help="an exported folder, or the name of one in --models (with --server: a name there)")
    parser.add_argument("input", metavar="INPUT", type=Path, help="a file, or a folder whose sub-folders are mirrored")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the answers go")
    parser.add_argument("--direction", choices=DIRECTIONS, help="needed where the model offers both")
    parser.add_argument("--output", choices=SEGMENT_OUTPUTS, default="colours", help="of to_label (default: %(default)s, a palette PNG)")
    parser.add_argument("--opacity", type=_opacity, default=0.5, metavar="0..1", help="of the colours in --output overlay (default: 0.5)")
    parser.add_argument(
        "--min-area", type=_area, default=1, metavar="PIXELS", help="leave smaller regions out of --output polygons and json (default: 1)"
    )
    parser.add_argument("--format", choices=PHOTO_FORMATS, default="jpeg", help="of to_photo (default: %(default)s)")
    parser.add_argument("--seed", type=_seed, default=0, help="of to_photo; equal seeds give equal photos (default: %(default)s)")
    parser.add_argument("--snap", action="store_true", help="take the nearest class for colours that belong to none")
    parser.add_argument(
        "--tiles",
        choices=get_args(Tiles),
        default="auto",
        help="whether a picture larger than the model's scale is run in overlapping tiles at its own size. auto: where the model was "
        "trained at the pictures' own size, and over 4 megapixels; always: wherever the model allows it (default: %(default)s)",
    )
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to run (default: %(default)s)")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="where a bare name is looked up (default: exported)")
    parser.add_argument(
        "--server",
        metavar="URL",
        help="let a running server do it, for example http://127.0.0.1:3000; FEWPAIR_TOKEN holds its token. "
        "A server that is full is asked again for two minutes",
    )
    return parser


def _seed(typed: str) -> int:
    if not (typed.isdecimal() and int(typed) < SEEDS):
        raise argparse.ArgumentTypeError(f"{typed} is no whole number from 0 to {SEEDS - 1}")
    return int(typed)


def _opacity(typed: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(typed) <= 1:
            return float(typed)
    raise argparse.ArgumentTypeError(f"{typed} is no number from 0 to 1")


def _area(typed: str) -> int:
    if not (typed.isdecimal() and 1 <= int(typed) <= MOST_AREA):
        raise argparse.ArgumentTypeError(f"{typed} is no whole number of pixels from 1 on")
    return int(typed)


def _inputs(given: Path, out: Path) -> list[Path]:
    if given.is_file():
        return [given]
    if not given.is_dir():
        raise ServingError(f"{given} does not exist.", hint="Give a picture, or a folder of pictures.")
    inside = out.resolve()
    files = [
        file
        for file in sorted(given.rglob("*"))
        if file.suffix.lower() in _ENDINGS and file.is_file() and not file.name.startswith(".") and inside not in file.resolve().parents
    ]
    if not files or inside == given.resolve():
        where = "is also --out" if inside == given.resolve() else f"holds no picture ({' '.join(sorted(_ENDINGS))})"
        raise ServingError(
            f"{given} {where}.", hint="Answers are written beside nothing of yours: give a folder of pictures and another one for --out."
        )
    return files


def _folder(asked: argparse.Namespace) -> Path:
    if (Path(asked.model) / "manifest.json").is_file():
        return Path(asked.model)
    shelf: Path = asked.models or default_models_folder()
    if not (shelf / asked.model / "manifest.json").is_file():
        there = ", ".join(sorted(path.parent.name for path in shelf.glob("*/manifest.json"))) or "none"
        raise ServingError(f"{asked.model} is neither an exported folder nor a model of {shelf}.", hint=f"Models there: {there}.")
    return shelf / str(asked.model)


def _here(asked: argparse.Namespace, folder: Path) -> Translate:
    model = load_model(folder, device=asked.device, threads=0)
    direction = _direction(asked.direction, list(model.manifest.directions), name=model.name)
    check_tiles(model.manifest, asked.tiles)
    print(f"{model.name}, {direction}, on {model.provider}")
    return (
        (lambda file: _segment(model, file, asked))
        if direction == "to_label"
        else (lambda file: _synthesize(model, file.read_bytes(), asked))
    )


def _segment(model: ExportedModel, file: Path, asked: argparse.Namespace) -> bytes:
    photo = read_photo(file.read_bytes(), _LIMITS)
    options = SegmentOptions(output=asked.output, opacity=asked.opacity, min_area=asked.min_area)
    check_output(model, options)
    answer, confidence = _translated(model, "to_label", photo, asked)
    return encode_segmentation(see(model, photo, answer, confidence=confidence), options, name=clean_name(file.name)).body


def _synthesize(model: ExportedModel, upload: bytes, asked: argparse.Namespace) -> bytes:
    if model.manifest.label.kind == "picture":
        photo, _ = _translated(model, "to_photo", read_photo(upload, _LIMITS), asked)
        made = Synthesis(model, (photo,), (asked.seed,), "picture")
    else:
        label = read_label(upload, _LIMITS, domain=model.manifest.label, snap=asked.snap)
        photo, _ = _translated(model, "to_photo", label.ids, asked)
        made = Synthesis(model, (photo,), (asked.seed,), label.spelling)
    return encode_photos(made, asked.format)[0].body


def _translated(model: ExportedModel, direction: DirectionName, pixels: Bytes, asked: argparse.Namespace) -> tuple[Bytes, Bytes | None]:
    """The main answer and the confidence at the picture's size; in tiles where the server would take them too."""
    grid = plan(model.manifest, (pixels.shape[0], pixels.shape[1]), asked.tiles)
    if grid is None:
        return model.to_label(pixels) if direction == "to_label" else (model.to_photo(pixels, seed=asked.seed), None)
    mosaic = Mosaic(grid, model.manifest.directions[direction].outputs)
    for row, columns in grid.batches():
        tiles = cut(pixels, grid, row, columns, void=model.manifest.label.void)
        mosaic.add(row, columns, model.run_batch(direction, tiles, seeds=[asked.seed] * len(columns)))
    return model.answers(direction, mosaic.answers(), None)


def _on_server(asked: argparse.Namespace, client: Client) -> Translate:
    direction = _direction(asked.direction, client.model(asked.model)["directions"], name=asked.model)
    print(f"{asked.model}, {direction}, on {asked.server}")
    if direction == "to_label":
        options: dict[str, Any] = {"output": asked.output, "opacity": asked.opacity, "min_area": asked.min_area, "tiles": asked.tiles}
        return lambda file: client.segment(file, model=asked.model, **options)
    made: dict[str, Any] = {"seed": asked.seed, "format": asked.format, "snap": asked.snap, "tiles": asked.tiles}
    return lambda file: client.synthesize(file, model=asked.model, **made).photo


def _direction(asked: DirectionName | None, offered: Sequence[str], *, name: str) -> str:
    if asked is not None and asked not in offered:
        raise ServingError(f"--direction {asked} is not offered by {name}.", hint=f"It offers {', '.join(offered)}.")
    if asked is None and len(offered) > 1:
        raise ServingError(
            f"{name} offers {' and '.join(offered)}.", hint="Say --direction to_label for photos, --direction to_photo for label maps."
        )
    return asked or offered[0]


def _ending(file: bytes) -> str:
    if file.startswith(b"\x89PNG"):
        return ".png"
    if file.startswith(b"{"):
        return ".json"
    return ".jpg" if file.startswith(b"\xff\xd8") else ".webp"


def _target(wanted: Path, ending: str, *, taken: set[Path]) -> Path:
    """The answer's path: a.jpg becomes a.png; where that is an input or another's answer, a.jpg.png."""
    target = wanted.with_suffix(ending)
    if target.resolve() in taken:
        target = wanted.with_name(wanted.name + ending)
    if target.resolve() in taken:
        raise FileExistsError(f"{target} would overwrite an input or another answer")
    taken.add(target.resolve())
    return target
