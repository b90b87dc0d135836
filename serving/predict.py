"""`fewpair predict`: translate files with one model, in this process or on a server."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image
from pydantic import ValidationError
from tqdm import tqdm

from serving.client import Client
from serving.errors import Refusal, ServingError
from serving.imaging.annotations import FORMATS
from serving.imaging.decode import Limits
from serving.imaging.domain import ClassRow, Domain
from serving.inference import pipeline
from serving.inference.archive import Picture, by_number
from serving.inference.outputs import clean_name
from serving.inference.parameters import SegmentParameters, StyleParameters, SynthesizeParameters
from serving.models.manifest import DIRECTIONS, DirectionName
from serving.models.model import RUN_FAILURES, Frames, load_model
from serving.models.repository import Repository
from serving.settings import PIXELS_CEILING, Device, default_models_folder

Translate = Callable[[Path], bytes]
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"})
_HEIF = frozenset({".heic", ".heif"})
_PATIENCE = 120.0  # seconds for which a request to an overloaded server is repeated
_POLL = 1.0  # seconds after which a watched folder is looked at again
_EXECUTION = pipeline.Execution(Limits(max_bytes=2**31, max_pixels=PIXELS_CEILING))
_SEGMENT = ("output", "opacity", "min_area", "tiles")
_SYNTHESIZE = ("seed", "format", "snap", "tiles")


def predict(argv: Sequence[str]) -> int:
    """Run the command; return 0, or 1 where files could not be translated."""
    args, segment, synthesize = _parsed(argv)
    endings, folder = _IMAGES if args.server else _readable(), Path(args.input)
    if args.out:
        _refuse_labels(args.out)
    files = [] if args.input == "-" or args.watch else _inputs(folder, args.out, endings)
    with ExitStack() as stack:
        if args.server:
            client = Client(args.server, token=os.environ.get("FEWPAIR_TOKEN"), patience=_PATIENCE)
            translate, domain = _on_server(args, stack.enter_context(client), segment, synthesize)
        else:
            translate, domain = _in_process(args, segment, synthesize)
        if args.input == "-":
            given = stack.enter_context(tempfile.NamedTemporaryFile())
            given.write(sys.stdin.buffer.read())
            given.flush()
            try:
                sys.stdout.buffer.write(translate(Path(given.name)))
            except RUN_FAILURES as error:
                raise ServingError(f"the model could not be run on it: {error}.", hint="Send a smaller one.") from error
            return 0
        if args.watch:
            with suppress(KeyboardInterrupt):
                _translate_all(_watched(folder, args.out, endings), args, translate, domain)
            return 0
        failures = _translate_all(files, args, translate, domain)
    print(f"{len(files) - len(failures)} of {len(files)} files are in {args.out}")
    return 1 if failures else 0


def _parsed(argv: Sequence[str]) -> tuple[argparse.Namespace, SegmentParameters, SynthesizeParameters]:
    """The options and the parameters in them; exits with a message where they contradict each other."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.input == "-" and (args.out or args.watch or args.tool):
        parser.error("argument INPUT: - is one picture, whose answer is on standard output: no --out, --watch or --as")
    if args.input != "-" and args.out is None:
        parser.error("argument --out: name a folder for the answers")
    if args.watch and (args.tool or not Path(args.input).is_dir()):
        parser.error("argument --watch: give a folder, and no --as, whose file is written at the end")
    if args.style and args.seed is not None:
        parser.error("argument --seed: the style of --style takes its place")
    args.seed = 0 if args.seed is None else args.seed
    try:
        segment = SegmentParameters.model_validate({name: getattr(args, name) for name in _SEGMENT})
        synthesize = SynthesizeParameters.model_validate({name: getattr(args, name) for name in _SYNTHESIZE})
    except ValidationError as error:
        problem = error.errors()[0]
        option = str(problem["loc"][0]).replace("_", "-")
        parser.error(f"argument --{option}: {problem['msg']}, not {problem['input']}")
    if args.style:
        if args.tool or args.direction == "to_label" or not args.style.is_file():
            parser.error(f"argument --style: give a photo, for photos of label maps, not {args.style}")
        args.direction = "to_photo"
    if args.tool:
        args.direction, segment = "to_label", segment.model_copy(update={"output": "ids"})
    return args, segment, synthesize


def _parser() -> argparse.ArgumentParser:
    description = "Translate a photo, a label map, or a folder of them with an exported model."
    parser = argparse.ArgumentParser(prog="fewpair predict", description=description)
    add = parser.add_argument
    add("model", metavar="MODEL", help="an exported folder, or the name of a model in --models (with --server: there)")
    add("input", metavar="INPUT", help="a file, a folder, whose sub-folders are mirrored, or - for standard input")
    add("--out", type=Path, metavar="DIR", help="folder for the answers; to INPUT - the answer is on standard output")
    add("--watch", action="store_true", help="go on with each new file of the folder INPUT, until Ctrl-C")
    add("--direction", choices=DIRECTIONS, help="required where the model has both")
    for name, field in {**SynthesizeParameters.model_fields, **SegmentParameters.model_fields}.items():
        if name in (*_SEGMENT, *_SYNTHESIZE):
            kind = {"action": "store_true"} if name == "snap" else {"default": field.default}
            described = f"{field.description} (default: %(default)s)"
            described = "decides how the photos look (default: 0)" if name == "seed" else described
            add(f"--{name.replace('_', '-')}", help=described, **kind)
    about = "write label maps in the format of a labelling tool (docs/labels.md)"
    add("--as", dest="tool", choices=FORMATS, help=about)
    add("--style", type=Path, metavar="PHOTO", help="give photos the look of this one, in place of a seed")
    add("--device", choices=get_args(Device), default="auto", help="of this process (default: %(default)s)")
    add(
        "--models", type=Path, metavar="FOLDER", help="of the models (default: ./exported, or without it those shipped)"
    )
    add("--server", metavar="URL", help="use a running server, as http://127.0.0.1:3000, with the token FEWPAIR_TOKEN")
    return parser


def _refuse_labels(out: Path) -> None:
    """Raise ServingError where `out` lies in the photos or the label maps of a project, beside its class table."""
    folder = out.resolve()
    for part in (folder, *folder.parents):
        if part.name in ("photos", "labels") and any((near / "classes.csv").is_file() for near in part.parents[:2]):
            message = f"--out {out} lies in the {part.name} of a project, which answers would replace."
            raise ServingError(message, hint="Name another folder.")


def _inputs(given: Path, out: Path, endings: frozenset[str]) -> list[Path]:
    """The images to translate. Prints how many other files of which types are ignored."""
    if given.is_file():
        return [given]
    if not given.is_dir():
        raise ServingError(f"{given} does not exist.", hint="Give an image, or a folder of images.")
    images, ignored = _listed(given, out, endings)
    types = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in ignored.most_common())
    if _HEIF & ignored.keys():
        types += " (install pillow-heif to read HEIC without --server)"
    if not images:
        found = f" Other files there: {types}." if ignored else ""
        message = f"{given} holds no image ({' '.join(sorted(endings))}).{found}"
        raise ServingError(message, hint="Give a folder of images.")
    if ignored:
        print(f"ignored {types}", file=sys.stderr)
    return images


def _listed(given: Path, out: Path, endings: frozenset[str]) -> tuple[list[Path], Counter[str]]:
    """The images of a folder, without those of `out`, and how many other files there are of each ending."""
    target = out.resolve()
    if target == given.resolve():
        raise ServingError(f"{given} is also --out.", hint="Give another folder for the answers.")
    files = [
        file
        for file in sorted(given.rglob("*"), key=by_number)
        if file.is_file() and not file.name.startswith(".") and target not in file.resolve().parents
    ]
    ignored = Counter(file.suffix.lower() for file in files if file.suffix.lower() not in endings)
    return [file for file in files if file.suffix.lower() in endings], ignored


def _watched(given: Path, out: Path, endings: frozenset[str]) -> Iterator[Path]:
    """Yield each image of a folder once, as soon as it is whole: unchanged since the last look. Never ends."""
    looked: dict[Path, tuple[int, int]] = {}
    done: set[Path] = set()
    while True:
        for file in _listed(given, out, endings)[0]:
            if file in done:
                continue
            with suppress(FileNotFoundError):  # it was taken away again
                state = file.stat().st_size, file.stat().st_mtime_ns
                if looked.get(file) == state:
                    done.add(file)
                    yield file
                looked[file] = state
        time.sleep(_POLL)


def _readable() -> frozenset[str]:
    """The endings of the images that can be read here; HEIC is among them where its plugin is installed."""
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        return _IMAGES | _HEIF
    return _IMAGES


def _in_process(
    args: argparse.Namespace, segment: SegmentParameters, synthesize: SynthesizeParameters
) -> tuple[Translate, Domain]:
    model = load_model(_model_folder(args), device=args.device, threads=0)
    direction = _direction(args.direction, list(model.manifest.directions), name=model.name)
    models = Repository({model.name: model}, {}, {direction: model.name})
    if args.style:
        read = pipeline.translator(models, StyleParameters())
        found = json.loads(read(Picture(args.style.name, args.style.read_bytes), _EXECUTION)[0].body)
        synthesize = synthesize.model_copy(update={"seed": None, "style": ",".join(map(str, found["style"]))})
    translate = pipeline.translator(models, segment if direction == "to_label" else synthesize)
    print(f"{model.name}, {direction}, on {model.provider}", file=sys.stderr)

    frames: defaultdict[Path, Frames] = defaultdict(Frames)  # each folder is a clip of its own

    def answer(file: Path) -> bytes:
        execution = replace(_EXECUTION, frames=frames[file.parent])
        return translate(Picture(clean_name(file.name), file.read_bytes), execution)[0].body

    return answer, model.manifest.label


def _on_server(
    args: argparse.Namespace, client: Client, segment: SegmentParameters, synthesize: SynthesizeParameters
) -> tuple[Translate, Domain]:
    model = client.model(args.model)
    if model.get("previous"):
        message = f"{args.model} makes each frame after the one before it, which a server does in jobs only."
        raise ServingError(message, hint="Run fewpair predict without --server, or send a job (docs/jobs.md).")
    direction = _direction(args.direction, model["directions"], name=args.model)
    domain = Domain("classes", tuple(ClassRow(**{**row, "color": tuple(row["color"])}) for row in model["classes"]))
    print(f"{args.model}, {direction}, on {args.server}", file=sys.stderr)
    if direction == "to_label":
        chosen = segment.model_dump(exclude_unset=True)
        return lambda file: client.segment(file, **{**chosen, "model": args.model}), domain
    made = {**synthesize.model_dump(exclude_unset=True), "model": args.model}
    if args.style:
        made |= {"seed": None, "style": client.style(args.style, model=args.model)}
    return lambda file: client.synthesize(file, **made).photo, domain


def _translate_all(files: Iterable[Path], args: argparse.Namespace, translate: Translate, domain: Domain) -> list[Path]:
    """Write the answer to each file; print why files could not be translated, and return them."""
    failures: list[Path] = []
    taken = {file.resolve() for file in files} if isinstance(files, list) else set()
    annotations = FORMATS[args.tool](args.out, domain, min_area=int(args.min_area)) if args.tool else None
    for file in tqdm(files, unit="file", disable=None):
        relative = file.relative_to(args.input) if Path(args.input).is_dir() else Path(file.name)
        try:
            answer = translate(file)
            if annotations is not None:
                annotations.add(relative, np.asarray(Image.open(io.BytesIO(answer))), photo=file)
                continue
            target = _target(args.out / relative, answer, taken=taken)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(answer)
        except pipeline.PICTURE_FAILURES as error:
            if isinstance(error, Refusal) and error.code == "unreachable":
                raise
            failures.append(file)
            named = f"the model could not be run on it: {type(error).__name__}: {error}".strip(": ")
            tqdm.write(f"{file}: {named if isinstance(error, RUN_FAILURES) else error}", file=sys.stderr)
    if annotations is not None:
        annotations.close()
    return failures


def _model_folder(args: argparse.Namespace) -> Path:
    models: Path = args.models or default_models_folder()
    for folder in (Path(args.model), models / args.model):
        if (folder / "manifest.json").is_file():
            return folder
    names = ", ".join(sorted(path.parent.name for path in models.glob("*/manifest.json"))) or "none"
    message = f"{args.model} is neither an exported folder nor a model of {models}."
    raise ServingError(message, hint=f"Models there: {names}.")


def _direction(chosen: DirectionName | None, offered: Sequence[DirectionName], *, name: str) -> DirectionName:
    if chosen is not None and chosen not in offered:
        raise ServingError(f"--direction {chosen} is not offered by {name}.", hint=f"It offers {', '.join(offered)}.")
    if chosen is None and len(offered) > 1:
        hint = "Add --direction to_label for photos, or --direction to_photo for label maps."
        raise ServingError(f"{name} offers {' and '.join(offered)}.", hint=hint)
    return chosen or offered[0]


def _target(wanted: Path, answer: bytes, *, taken: set[Path]) -> Path:
    """The path of an answer: a.jpg becomes a.png, or a.jpg.png where that is an input or another answer."""
    endings = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"{": ".json", b"RIFF": ".webp"}
    ending = next(ending for magic, ending in endings.items() if answer.startswith(magic))
    for target in (wanted.with_suffix(ending), wanted.with_name(wanted.name + ending)):
        if target.resolve() not in taken:
            taken.add(target.resolve())
            return target
    raise FileExistsError(f"{target} would overwrite an input or another answer")
