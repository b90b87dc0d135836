"""The models folder: what stands in it, what cannot be served and why, and which model answers when none is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ModelError, Refusal
from serving.manifest import DIRECTIONS, DirectionName
from serving.settings import Device, Settings
from serving.translator import ExportedModel, load_model

logger = logging.getLogger("fewpair.serving")
WORDS: dict[DirectionName, str] = {"to_label": "photo to label map", "to_photo": "label map to photo"}


@dataclass(frozen=True)
class Shelf:
    """The models that answer, the folders that do not (each with its reason), and the defaults."""

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


def fill(settings: Settings) -> Shelf:
    """Load every folder of the models folder. A folder that fails is listed with its reason and takes nothing down with it."""
    shelf = load_folders(settings.models, device=settings.device, threads=settings.intra_op_threads, default=settings.default_model)
    if settings.default_model is not None and settings.default_model not in shelf.models:
        why = shelf.broken.get(settings.default_model, f"models here: {', '.join(shelf.models) or 'none'}")
        raise ModelError(f"FEWPAIR_DEFAULT_MODEL={settings.default_model} cannot be the default: {why}.")
    return shelf


def load_folders(folder: Path, *, device: Device, threads: int, default: str | None) -> Shelf:
    """The shelf of one models folder."""
    models: dict[str, ExportedModel] = {}
    broken: dict[str, str] = {}
    for path in model_folders(folder):
        try:
            models[path.name] = load_model(path, device=device, threads=threads)
        except ModelError as error:
            broken[path.name] = str(error)
            logger.warning("model %s is not served: %s", path.name, error)
    return Shelf(models, broken, _defaults(models, default))


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
