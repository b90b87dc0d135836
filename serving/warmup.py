"""The first requests a server answers are its own: one to every default model, from file to file, before it says that it is ready."""

from __future__ import annotations

from functools import partial

import numpy as np

from serving.asked import SegmentOptions, SynthesizeOptions
from serving.batch import Picture
from serving.errors import Refusal
from serving.imaging import encode_grey, encode_photo
from serving.manifest import DirectionName, Manifest
from serving.operations import Operations
from serving.translator import RUN_FAILURES

_SIZE = (128, 192)
_FAILURES: tuple[type[Exception], ...] = (Refusal, *RUN_FAILURES)


async def first_requests(operations: Operations) -> str | None:
    """Ask every default model as a stranger would; the reason why one does not answer, or None where all do.

    Loading a model has run its graph already; this goes the whole way, through decoders, gate, threads and encoders.
    """
    for direction, name in operations.shelf.defaults.items():
        picture = Picture("first", partial(_file, operations.shelf.models[name].manifest, direction))
        try:
            if direction == "to_label":
                await operations.segment([picture], SegmentOptions(model=name))
            else:
                await operations.synthesize([picture], SynthesizeOptions(model=name, seed=0))
        except _FAILURES as error:
            return f"the default model {name} does not answer ({direction}): {error}"
    return None


def _file(manifest: Manifest, direction: DirectionName) -> bytes:
    """A dark photo, or a label map of one class, at the size the model runs at."""
    size = (manifest.resize.height or _SIZE[0], manifest.resize.width or _SIZE[1])
    if direction == "to_label" or manifest.label.kind == "picture":
        return encode_photo(np.zeros((*size, 3), np.uint8), "jpeg")
    return encode_grey(np.full(size, manifest.label.classes[0].id, np.uint8))
