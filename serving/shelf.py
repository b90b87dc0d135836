"""The models folder: what stands in it, what cannot be served and why, and which model answers when none is named."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serving.errors import DeviceError, ModelError, Refusal, SettingError
from serving.manifest import DIRECTIONS, DirectionName, read_graph, read_manifest
from serving.session import pictures_a_run
from serving.settings import Device, Settings
from serving.translator import ExportedModel, load_model

logger = logging.getLogger("fewpair.serving")
_MOMENT = 0.2  # seconds; between two renames of an export lie microseconds
_LOOKS = 2
Load = Callable[[Path], ExportedModel]
WORDS: dict[DirectionName, str] = {"to_label": "photo to label map", "to_photo": "label map to photo"}


@dataclass(frozen=True)
class Shelf:
    """The models that answer, the folders that do not (each with its reason), and the defaults.

    Any caller is told the reasons: they name files from the models folder on, not where on this machine that is.
    """

    models: Mapping[str, ExportedModel]
    broken: Mapping[str, str]
    defaults: Mapping[DirectionName, str]

    def choose(self, name: str | None, direction: DirectionName) -> ExportedModel:
        """The model of that name, or the default of the direction; Refusal names the models that exist."""
        offering = [model.name for model in self.models.values() if model.offers(direction)]
        if name is None:
            if direction not in self.defaults:
                raise Refusal(404, "no_model", f"no model here translates {WORDS[direction]}.", hint="GET /v1/models lists what there is.")
            return self.models[self.defaults[direction]]
        model = self.find(name)
        if not model.offers(direction):
            hint = f"Models that do: {', '.join(offering)}." if offering else "No model here does."
            raise Refusal(400, "direction_not_offered", f"model {name} does not translate {WORDS[direction]}.", hint=hint)
        return model

    def find(self, name: str) -> ExportedModel:
        """The model of that name."""
        if name in self.models:
            return self.models[name]
        if name in self.broken:
            raise Refusal(404, "broken_model", f"model {name} is there, but cannot be served.", hint=self.broken[name])
        hint = f"Models here: {', '.join(self.models) or 'none'}."
        raise Refusal(404, "unknown_model", f"there is no model called {name[:80]!r}.", hint=hint)

    def trouble(self) -> str | None:
        """Why this shelf cannot serve at all; None where it can."""
        if self.models:
            return None
        return "; ".join(self.broken.values()) or "the models folder is empty"


@dataclass(frozen=True)
class Restocked:
    """A shelf after a look into the models folder, and what that look found."""

    shelf: Shelf
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]


def fill(settings: Settings) -> Shelf:
    """Load every folder of the models folder. A folder that fails is listed with its reason and takes nothing down with it."""
    return restock(Shelf({}, {}, {}), settings).shelf


def restock(former: Shelf, settings: Settings, *, prove: Callable[[ExportedModel, Settings], None] | None = None) -> Restocked:
    """Look into the models folder again: what is new or changed is loaded, warmed and proven, what is unchanged is kept.

    ModelError where the folder cannot be read, or the model that the settings name as the default has never been there.
    """

    proven: set[str] = set()

    def load(path: Path) -> ExportedModel:
        model = load_model(
            path,
            device=settings.device,
            threads=settings.intra_op_threads,
            batch=pictures_a_run(settings),
            deterministic=settings.deterministic,
        )
        if prove is not None:
            prove(model, settings)
            proven.add(model.name)
        return model

    found = _look(former, settings.models, load, default=settings.default_model)
    if settings.default_model is not None and settings.default_model not in found.shelf.models:
        why = found.shelf.broken.get(settings.default_model, f"models here: {', '.join(found.shelf.models) or 'none'}")
        raise SettingError("default_model", settings.default_model, f"cannot be the default: {why.rstrip('.')}.")
    if prove is not None:
        for name in sorted(set(found.shelf.defaults.values()) - proven):  # it may not have answered before, or not been a default
            prove(found.shelf.models[name], settings)
    return found


def load_folders(folder: Path, *, device: Device, threads: int, default: str | None) -> Shelf:
    """The shelf of one models folder."""
    return _look(Shelf({}, {}, {}), folder, partial(load_model, device=device, threads=threads), default=default).shelf


def _look(former: Shelf, folder: Path, load: Load, *, default: str | None) -> Restocked:
    models: dict[str, ExportedModel] = {}
    broken: dict[str, str] = {}
    paths = _present(folder, former)
    for path in paths:
        held = former.models.get(path.name)
        try:
            models[path.name] = _settled(path, held, load)
        except (ModelError, DeviceError) as error:
            if isinstance(error, DeviceError) and not former.models:  # not this folder's fault, nothing here can be served
                raise
            broken[path.name] = str(error).replace(f"{folder}{os.sep}", "")
            if held is not None:
                models[path.name] = held
            logger.warning("model %s is not served%s: %s", path.name, "" if held is None else " in its new form", error)
    gone = former.models.keys() - {path.name for path in paths}
    if default in gone:
        models[default] = former.models[default]
        broken[default] = f"{default} is gone; the default model goes on answering. Put it back, or start with another default."
    models = {name: models[name] for name in sorted(models)}
    same = {name for name, model in models.items() if model is former.models.get(name)}
    return Restocked(
        Shelf(models, broken, _defaults(models, default)),
        added=tuple(name for name in models if name not in former.models),
        changed=tuple(name for name in models if name in former.models and name not in same),
        removed=tuple(sorted(gone - models.keys())),
        kept=tuple(name for name in models if name in same and name not in broken),
    )


def _present(folder: Path, former: Shelf) -> list[Path]:
    """The model folders. One that was served and is not there gets a second look: an export takes it away for a moment."""
    paths = model_folders(folder)
    if former.models.keys() <= {path.name for path in paths}:
        return paths
    time.sleep(_MOMENT)
    return model_folders(folder)


def _settled(path: Path, held: ExportedModel | None, load: Load) -> ExportedModel:
    """The model of a folder; looked at again where another folder took its place meanwhile, as an export does."""
    for _ in range(_LOOKS):
        before = _inode(path)
        try:
            return _model_of(path, held, load)
        except ModelError:
            if _inode(path) == before:
                raise
            time.sleep(_MOMENT)
    return _model_of(path, held, load)


def _model_of(path: Path, held: ExportedModel | None, load: Load) -> ExportedModel:
    """The model that is served already, where the folder holds exactly that one; otherwise it is loaded."""
    if held is None:
        return load(path)
    manifest = read_manifest(path)
    if manifest.digest != held.manifest.digest:
        return load(path)
    for direction in manifest.directions.values():
        read_graph(direction)  # that the manifest is the same says nothing of the files beside it
    return held


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def model_folders(folder: Path) -> list[Path]:
    """Every visible sub-folder, by name: each is meant to be a model."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    except OSError as error:
        raise ModelError(
            f"the models folder {folder} cannot be read: {error.strerror or error}.",
            hint="Say --models FOLDER with a folder of exported models, or make one with `fewpair export`.",
        ) from None


def _defaults(models: Mapping[str, ExportedModel], default: str | None) -> dict[DirectionName, str]:
    chosen: dict[DirectionName, str] = {}
    for direction in DIRECTIONS:
        offering = [name for name, model in models.items() if model.offers(direction)]
        if offering:
            chosen[direction] = default if default in offering else offering[0]
    return chosen
