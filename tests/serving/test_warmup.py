"""Ready is said after every default model has answered a request, and not where one does not."""

import asyncio

import pytest

from serving.inside import Inside
from serving.settings import Settings
from serving.shelf import fill
from tests.serving.factory import write_model, write_picture_model


@pytest.fixture
def stocked(tmp_path):
    """What a server is before its first request: a model with noise at a fixed size, and one between pictures."""
    write_model(tmp_path / "sized", resize={"rule": "exact", "height": 32, "width": 48, "filter": "bicubic"}, multiple_of=20)
    write_picture_model(tmp_path / "views")

    def stock(default):
        settings = Settings.from_environment(
            {"FEWPAIR_MODELS": str(tmp_path), "FEWPAIR_DEVICE": "cpu", "FEWPAIR_THREADS": "1", "FEWPAIR_DEFAULT_MODEL": default}
        )
        inside = Inside()
        inside.stock(fill(settings), settings)
        return inside

    return stock


@pytest.mark.parametrize("default", ["sized", "views"])
def test_every_default_model_answers_a_request_before_the_server_is_ready(stocked, default):
    inside, runs = stocked(default), []
    inside.need().gate.on_run = runs.append
    asyncio.run(inside.warm_up())
    assert inside.trouble is None
    assert runs == [1, 1]


def test_a_default_model_that_does_not_answer_is_the_reason_why_the_server_is_not_ready(stocked, monkeypatch):
    inside = stocked("sized")

    def failing(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(inside.need().shelf.models["sized"], "run_batch", failing)
    asyncio.run(inside.warm_up())
    assert inside.trouble == "the default model sized does not answer (to_label): out of memory"
