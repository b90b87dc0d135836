"""The first requests a server answers are its own: to every default model before it says that it is ready, to every model of a reload."""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial

import numpy as np

from serving.asked import SegmentOptions, SynthesizeOptions
from serving.batch import Picture
from serving.errors import ModelError, Refusal
from serving.imaging import encode_grey, encode_photo
from serving.manifest import DirectionName, Manifest
from serving.operations import Operations
from serving.settings import Settings
from serving.shelf import Shelf
from serving.translator import RUN_FAILURES, ExportedModel

_SIZE = (128, 192)
_FAILURES: tuple[type[Exception], ...] = (Refusal, *RUN_FAILURES)


async def first_requests(operations: Operations) -> str | None:
    """Ask every default model as a stranger would; the reason why one does not answer, or None where all do.

    Loading a model has run its graph already; this goes the whole way, through decoders, gate, threads and encoders.
    """
    for direction, name in operations.shelf.defaults.items():
        trouble = await _first_request(operations, direction, name)
        if trouble is not None:
            return f"the default model {name} does not answer {trouble}"
    return None


def prove(model: ExportedModel, settings: Settings) -> None:
    """Ask a model in each of its directions before a running server serves it; ModelError where it does not answer.

    In a thread, behind a gate of its own: the requests of others go on beside it.
    """

    async def asked() -> None:
        operations = Operations(Shelf({model.name: model}, {}, {}), settings)
        try:
            for direction in model.manifest.directions:
                trouble = await _first_request(operations, direction, model.name)
                if trouble is not None:
                    raise ModelError(f"{model.name} does not answer a first request {trouble}")
        finally:
            operations.gate.close()

    # Who asked for the reload holds a place and a clock; the first request has its own.
    contextvars.Context().run(asyncio.run, asked())


async def _first_request(operations: Operations, direction: DirectionName, name: str) -> str | None:
    picture = Picture("first", partial(_file, operations.shelf.models[name].manifest, direction))
    try:
        if direction == "to_label":
            await operations.segment([picture], SegmentOptions(model=name))
        else:
            await operations.synthesize([picture], SynthesizeOptions(model=name, seed=0))
    except _FAILURES as error:
        return f"({direction}): {error}"
    return None


def _file(manifest: Manifest, direction: DirectionName) -> bytes:
    """A dark photo, or a label map of one class, at the size the model runs at."""
    size = (manifest.resize.height or _SIZE[0], manifest.resize.width or _SIZE[1])
    if direction == "to_label" or manifest.label.kind == "picture":
        return encode_photo(np.zeros((*size, 3), np.uint8), "jpeg")
    return encode_grey(np.full(size, manifest.label.classes[0].id, np.uint8))
