"""Read and check a manifest: what one exported folder holds and how it is to be run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jsonschema

from serving.errors import ModelError

DirectionName = Literal["to_label", "to_photo"]
DIRECTIONS: tuple[DirectionName, ...] = ("to_label", "to_photo")
IGNORE = 255  # accepted in label maps as void, whatever the class table says


@dataclass(frozen=True)
class ClassRow:
    """One class of a label map: the id and the colour that stand for it."""

    id: int
    name: str
    color: tuple[int, int, int]
    ignore: bool


@dataclass(frozen=True)
class Domain:
    """One side of a model: classes, or a picture."""

    kind: Literal["classes", "picture"]
    classes: tuple[ClassRow, ...]

    @property
    def void(self) -> int:
        """The id that says "nothing is known here"."""
        return next((row.id for row in self.classes if row.ignore), IGNORE)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the graph: uint8, its batch, height and width dynamic."""

    name: str
    kind: Literal["photo", "picture", "label", "confidence"]
    layout: Literal["NHWC", "NHW"]


@dataclass(frozen=True)
class NoiseSpec:
    """A float32 input [batch, *shape] that the server draws from the seed."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Direction:
    """One graph of the model."""

    file: Path
    sha256: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    noise: NoiseSpec | None


@dataclass(frozen=True)
class Resize:
    """How an upload is brought to the scale the model was trained at."""

    rule: Literal["fit", "exact", "none"]
    height: int | None
    width: int | None
    filter: Literal["bicubic", "bilinear", "lanczos", "box"]


@dataclass(frozen=True)
class Manifest:
    """The contract between the trainer and the server, checked."""

    name: str
    description: str
    folder: Path
    digest: str  # sha256 of manifest.json, which holds those of the graphs: equal digests are the same model
    directions: Mapping[DirectionName, Direction]
    photo: Domain
    label: Domain
    resize: Resize
    multiple_of: int
    tiling: Literal["allowed", "forbidden"]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    parity: Mapping[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """Read `folder/manifest.json`; ModelError where it is absent, breaks the schema or points outside its folder."""
    path = folder / "manifest.json"
    try:
        written = path.read_bytes()
        raw = json.loads(written.decode("utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        raise ModelError(f"{folder} has no manifest.json.", hint="Export the model with `fewpair export`.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}.", hint="Export the model again.") from None
    problem = jsonschema.exceptions.best_match(_validator().iter_errors(raw))
    if problem is not None:
        where = "/".join(str(part) for part in problem.absolute_path) or "the top level"
        raise ModelError(f"{path} breaks the manifest schema at {where}: {problem.message}.", hint="Export the model again.")
    if raw["name"] != folder.resolve().name:
        raise ModelError(
            f"{path} says its name is {raw['name']}, but its folder is called {folder.resolve().name}.", hint="Rename one of them."
        )
    label = _domain(raw["domains"]["label"], path)
    return Manifest(
        name=raw["name"],
        description=raw["description"],
        folder=folder,
        digest=hashlib.sha256(written).hexdigest(),
        directions={name: _direction(raw["directions"][name], folder) for name in DIRECTIONS if name in raw["directions"]},
        photo=_domain(raw["domains"]["photo"], path),
        label=label,
        resize=Resize(**raw["resize"]),
        multiple_of=raw["multiple_of"],
        tiling=raw["tiling"],
        training=raw["training"],
        metrics=raw["metrics"],
        parity=raw["parity"],
    )


def read_graph(direction: Direction) -> bytes:
    """The bytes of the ONNX file, equal to what the manifest promises."""
    try:
        graph = direction.file.read_bytes()
    except OSError as error:
        raise ModelError(f"{direction.file} cannot be read: {error.strerror or error}.", hint="Export the model again.") from None
    found = hashlib.sha256(graph).hexdigest()
    if found != direction.sha256:
        raise ModelError(
            f"{direction.file} does not match its manifest (sha256 {found[:4]}.. expected {direction.sha256[:4]}..).",
            hint="Export it again.",
        )
    return graph


def _no_constant(spelled: str) -> float:
    raise ValueError(f"{spelled} is no number of JSON")  # Python reads it, and would then fail to list the models


@cache
def _validator() -> jsonschema.Draft202012Validator:
    beside_the_package = Path(__file__).parent / "exported" / "manifest.schema.json"
    in_the_repository = Path(__file__).parent.parent / "exported" / "manifest.schema.json"
    path = beside_the_package if beside_the_package.is_file() else in_the_repository
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def _domain(raw: dict[str, Any], path: Path) -> Domain:
    rows = tuple(
        ClassRow(row["id"], row["name"], (row["color"][0], row["color"][1], row["color"][2]), row["ignore"]) for row in raw["classes"] or ()
    )
    if raw["kind"] == "classes" and not rows:
        raise ModelError(f"{path} has a class domain without classes.", hint="Export the model again.")
    for what, values in (("id", [row.id for row in rows]), ("colour", [row.color for row in rows])):
        repeated = next((value for index, value in enumerate(values) if value in values[:index]), None)
        if repeated is not None:
            raise ModelError(f"{path} gives the {what} {repeated} to two classes.", hint="Give each class its own and export again.")
    return Domain(raw["kind"], rows)


def _direction(raw: dict[str, Any], folder: Path) -> Direction:
    file = folder / raw["file"]
    if file.resolve().parent != folder.resolve():  # the schema allows no slash; a link could still lead out
        raise ModelError(f"{file} leads out of its folder.", hint="Put the ONNX file itself beside its manifest.")
    noise = raw["noise"]
    return Direction(
        file=file,
        sha256=raw["sha256"],
        input=_tensor(raw["input"]),
        outputs=tuple(_tensor(output) for output in raw["outputs"]),
        noise=None if noise is None else NoiseSpec(noise["name"], tuple(noise["shape"])),
    )


def _tensor(raw: dict[str, Any]) -> TensorSpec:
    return TensorSpec(raw["name"], raw["kind"], raw["layout"])
