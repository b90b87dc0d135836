"""The model repository: the models that are served, the folders that cannot be, the defaults, and reloading."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.errors import DeviceError, ModelError, Refusal, ServingError
from serving.models.manifest import DIRECTIONS, DirectionName, read_graph, read_manifest
from serving.models.model import ExportedModel, load_model
from serving.models.session import first_line, largest_batch
from serving.settings import Settings

logger = logging.getLogger("fewpair.serving")
_PAUSE = 0.2  # seconds after which a folder that fails is read again: an export renames two folders
_HINT = "Export a model with `fewpair export RUN`, or make one with `make demo`; --models names another folder."
WORDS: dict[DirectionName, str] = {"to_label": "photo to label map", "to_photo": "label map to photo"}


@dataclass(frozen=True)
class Repository:
    """The models by name, why other folders are not served, and the default model of each direction.

    The reasons are public: they name files below the models folder, not where it is on this machine. `changes` are the
    names that the reload found to be added, changed, removed and kept.
    """

    models: Mapping[str, ExportedModel]
    broken: Mapping[str, str]
    defaults: Mapping[DirectionName, str]
    changes: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def not_ready_reason(self) -> str | None:
        """Why no model can be served; None where one can."""
        reasons = "".join(f"\n  {reason}" for reason in self.broken.values()) or " it is empty."
        return None if self.models else f"no model in the models folder can be served:{reasons}\n{_HINT}"

    def choose(self, name: str | None, direction: DirectionName) -> ExportedModel:
        """Return the model of that name, or the default of the direction. Raises Refusal where there is none."""
        if name is None:
            if direction not in self.defaults:
                message = f"no model here translates {WORDS[direction]}."
                raise Refusal(404, "no_model", message, hint="GET /v1/models lists what there is.")
            return self.models[self.defaults[direction]]
        model = self.find(name)
        if not model.offers(direction):
            offering = [model.name for model in self.models.values() if model.offers(direction)]
            hint = f"Models that do: {', '.join(offering)}." if offering else "No model here does."
            message = f"model {name} does not translate {WORDS[direction]}."
            raise Refusal(400, "direction_not_offered", message, hint=hint)
        return model

    def find(self, name: str) -> ExportedModel:
        """Return the model of that name. Raises Refusal where there is none."""
        if name in self.models:
            return self.models[name]
        if name in self.broken:
            raise Refusal(404, "broken_model", f"model {name} is there, but cannot be served.", hint=self.broken[name])
        hint = f"Models here: {', '.join(self.models) or 'none'}."
        raise Refusal(404, "unknown_model", f"there is no model called {name[:80]!r}.", hint=hint)


EMPTY = Repository({}, {}, {})


def reload_repository(former: Repository, settings: Settings) -> Repository:
    """Load new and changed models and keep the unchanged ones; blocks until all are warmed up.

    A folder that fails is listed with its reason; its former model, if any, stays, as does a default model whose folder
    is gone. Raises ModelError where the folder cannot be read, or never held the model that the settings name as the
    default.
    """
    default = settings.default_model
    models: dict[str, ExportedModel] = {}
    broken: dict[str, str] = {}
    removed: list[str] = []
    for name in sorted({*_model_folders(settings.models), *former.models}):
        folder, held = settings.models / name, former.models.get(name)
        try:
            models[name] = _load(folder, held, settings)
        except Exception as error:  # one folder must never affect the others
            if isinstance(error, DeviceError) and not former.models:
                raise
            if not folder.is_dir() and name != default:
                removed.append(name)
                continue
            reason = str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {first_line(error)}."
            if not folder.is_dir():
                reason = f"{name} is gone; as the default model it stays. Put it back, or restart with another one."
            broken[name] = reason.replace(f"{settings.models}{os.sep}", "")
            if held is not None:
                models[name] = held
            logger.warning("model %s is not served%s: %s", name, " in its new form" if held else "", reason)
    if default is not None and default not in models:
        why = broken.get(default, f"models here: {', '.join(models) or 'none'}").rstrip(".")
        raise ModelError(f"default_model {default} cannot be the default: {why}.", hint="Choose another one.")
    same = {name for name, model in models.items() if model is former.models.get(name)}
    changes = {
        "added": [name for name in models if name not in former.models],
        "changed": [name for name in models if name in former.models and name not in same],
        "removed": removed,
        "kept": [name for name in models if name in same and name not in broken],
    }
    return Repository(models, broken, _defaults(models, default), changes)


def _model_folders(folder: Path) -> list[str]:
    """List the names of the visible sub-folders."""
    try:
        if (folder / "manifest.json").is_file():
            hint = f"Name the folder above it: --models {folder.parent}"
            raise ModelError(f"{folder} is a model, not a folder of models.", hint=hint)
        return [path.name for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"]
    except OSError as error:
        raise ModelError(f"the models folder {folder} cannot be read: {error.strerror or error}.", hint=_HINT) from None


def _load(folder: Path, held: ExportedModel | None, settings: Settings) -> ExportedModel:
    """Load a folder, a second time where that fails: an export may be replacing it."""
    try:
        return _current_model(folder, held, settings)
    except ModelError:
        time.sleep(_PAUSE)
        return _current_model(folder, held, settings)


def _current_model(folder: Path, held: ExportedModel | None, settings: Settings) -> ExportedModel:
    """Return the held model where the folder still holds exactly that one, otherwise the folder's."""
    if held is not None:
        manifest = read_manifest(folder)
        if manifest.digest == held.manifest.digest:
            for graph in manifest.graphs:
                read_graph(graph)  # checks the file against its sum
            return held
    model = load_model(
        folder,
        device=settings.device,
        threads=settings.intra_op_threads,
        batch=largest_batch(settings),
        deterministic=settings.deterministic,
    )
    logger.info("model %s: %s on %s", model.name, ", ".join(model.manifest.directions), model.provider)
    return model


def _defaults(models: Mapping[str, ExportedModel], default: str | None) -> dict[DirectionName, str]:
    """The default model of each direction: the named one, else one with this direction alone, first by name."""
    chosen: dict[DirectionName, str] = {}
    for direction in DIRECTIONS:
        offering = [name for name, model in models.items() if model.offers(direction)]
        if default in offering:
            chosen[direction] = default
        elif offering:
            chosen[direction] = min(offering, key=lambda name: (len(models[name].manifest.directions), name))
    return chosen
