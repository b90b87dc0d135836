"""Models behind a scheduler, without HTTP."""

from __future__ import annotations

from serving.imaging.decode import Limits
from serving.inference.archive import Picture
from serving.inference.pipeline import Backend, Execution, prepare, run_prepared, translate, translator
from serving.models.model import load_model
from serving.models.repository import EMPTY, reload_repository
from serving.settings import Settings

EXECUTION = Execution(Limits(max_bytes=2**20, max_pixels=2**24))


def backend_of(folder, **settings):
    """The models of a folder on the CPU."""
    chosen = Settings(models=folder, device="cpu", threads=1, **settings)
    return Backend(chosen, reload_repository(EMPTY, chosen))


async def answer_to(backend, file, parameters, *, name="picture.png"):
    """The answer to one picture."""
    one = translator(backend.models, parameters)
    return await translate([Picture(name, lambda: file)], one, backend)


def model_of(folder, **options):
    """The model of a folder on one thread of the CPU."""
    return load_model(folder, **{"device": "cpu", "threads": 1, **options})


def answer_of(model, direction, pixels, *, seed=0):
    """The answer to a decoded picture in one piece at its size, and the confidence."""
    prepared = prepare(model, pixels, EXECUTION.limits, tiles="never")
    (found,) = run_prepared(model, direction, prepared, EXECUTION, seeds=(seed,))
    return found
