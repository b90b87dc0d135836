"""Read and check a manifest: what one exported folder holds and how to run it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jsonschema
from pydantic import TypeAdapter

from serving.errors import ModelError
from serving.imaging.domain import Domain, Resize

DirectionName = Literal["to_label", "to_photo"]
DIRECTIONS: tuple[DirectionName, ...] = ("to_label", "to_photo")


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
class SmallGraph:
    """A direction's graph in 8 bits, for CPUs."""

    file: Path
    sha256: str


@dataclass(frozen=True)
class Direction:
    """One graph of the model."""

    file: Path
    sha256: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    noise: NoiseSpec | None
    previous: TensorSpec | None = None  # the photo of the frame before; 128 everywhere where there is none
    int8: SmallGraph | None = None

    @property
    def input_names(self) -> set[str]:
        return {spec.name for spec in (self.input, self.noise, self.previous) if spec}

    @property
    def output_names(self) -> set[str]:
        return {output.name for output in self.outputs}


@dataclass(frozen=True)
class StyleGraph:
    """The graph from a photo of `size` (height, width) to the noise that gives `to_photo` its look."""

    file: Path
    sha256: str
    size: tuple[int, int]
    int8: None = None
    input_names = frozenset({"photo"})
    output_names = frozenset({"noise"})


Graph = Direction | SmallGraph | StyleGraph


@dataclass(frozen=True)
class Manifest:
    """A checked manifest, the contract between the trainer and the server."""

    name: str
    description: str
    folder: Path
    digest: str  # sha256 of manifest.json, which holds those of the graphs: equal digests are the same model
    directions: Mapping[DirectionName, Direction]
    label: Domain
    resize: Resize
    multiple_of: int
    tiling: Literal["allowed", "forbidden"]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    parity: Mapping[str, Any]
    style: StyleGraph | None = None
    examples: tuple[str, ...] = ()

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """What has an ONNX file."""
        graphs = (*self.directions.values(), *(each.int8 for each in self.directions.values()), self.style)
        return tuple(graph for graph in graphs if graph)


def read_manifest(folder: Path) -> Manifest:
    """Read `folder/manifest.json`. Raises ModelError where it is absent, invalid or points outside its folder."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no manifest.json.", hint="Export the model with `fewpair export`.")
    try:
        written = path.read_bytes()
        raw = json.loads(written.decode("utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(f"{path} cannot be read as JSON: {error}.") from None
    problem = jsonschema.exceptions.best_match(_validator().iter_errors(raw))
    if problem is not None:
        where = "/".join(str(part) for part in problem.absolute_path) or "the top level"
        raise _broken(f"{path} breaks the manifest schema at {where}: {problem.message[:300]}.")
    if raw["name"] != folder.resolve().name:
        message = f"{path} says its name is {raw['name']}, but its folder is called {folder.resolve().name}."
        raise ModelError(message, hint="Rename one of them.")
    directions = raw["directions"].values()
    for one in filter(None, (*directions, *(each.get("int8") for each in directions), raw.get("style"))):
        one["file"] = folder / one["file"]
        if one["file"].resolve().parent != folder.resolve():  # the schema allows no slash; a link could still lead out
            message = f"{one['file']} leads out of its folder."
            raise ModelError(message, hint="Put the ONNX file itself beside its manifest.")
    for domain in raw["domains"].values():
        domain["classes"] = domain["classes"] or ()
        _check_classes(domain, path)
    raw["directions"] = {name: raw["directions"][name] for name in DIRECTIONS if name in raw["directions"]}
    digest = hashlib.sha256(written).hexdigest()
    return _MANIFEST.validate_python({**raw, "label": raw["domains"]["label"], "folder": folder, "digest": digest})


def read_graph(direction: Graph) -> bytes:
    """Return the bytes of the ONNX file. Raises ModelError where their sum is not the manifest's."""
    try:
        graph = direction.file.read_bytes()
    except OSError as error:
        raise _broken(f"{direction.file} cannot be read: {error.strerror or error}.") from None
    found, expected = hashlib.sha256(graph).hexdigest(), direction.sha256
    if found != expected:
        raise _broken(f"{direction.file} does not match its manifest (sha256 {found[:4]}.. expected {expected[:4]}..).")
    return graph


def _broken(message: str) -> ModelError:
    return ModelError(message, hint="Export the model again.")


def _refuse_constant(spelled: str) -> float:
    raise ValueError(f"{spelled} is no number of JSON")  # Python reads NaN, and could then not list the models as JSON


@cache
def _validator() -> jsonschema.Draft202012Validator:
    folders = Path(__file__).parents[1:3]  # the package, in a wheel; the repository
    files = [folder / "exported" / "manifest.schema.json" for folder in folders]
    path = next(file for file in files if file.is_file())
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def _check_classes(domain: dict[str, Any], path: Path) -> None:
    if domain["kind"] == "classes" and not domain["classes"]:
        raise _broken(f"{path} has a class domain without classes.")
    for what, key in (("id", "id"), ("colour", "color")):
        values = [row[key] for row in domain["classes"]]
        repeated = next((value for index, value in enumerate(values) if value in values[:index]), None)
        if repeated is not None:
            hint = "Give each class its own and export again."
            raise ModelError(f"{path} gives the {what} {repeated} to two classes.", hint=hint)


_MANIFEST = TypeAdapter(Manifest)
