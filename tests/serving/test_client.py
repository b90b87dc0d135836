"""The typed client speaks with a real server and raises its words."""

import asyncio

import numpy as np
import pytest

from serving.client import AsyncClient, Client
from serving.errors import Refusal
from tests.serving.pictures import file_of, pixels_of, ramp, stripes
from tests.serving.test_translator import brightness_ids


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


def test_it_lists_segments_and_synthesizes(client, tmp_path):
    assert {model["name"] for model in client.models()} == {"tiny", "123", "labels-only", "views"}
    assert client.model("tiny")["training"]["method"] == "by hand"
    path = tmp_path / "photo.png"
    path.write_bytes(file_of(ramp()))
    assert np.array_equal(pixels_of(client.segment(path)), brightness_ids(ramp()))
    assert client.report(path)["width"] == 61
    made = client.synthesize(file_of(stripes()), seed=4, format="png")
    assert (made.seed, made.model) == (4, "tiny")
    several = client.synthesize_several(file_of(stripes()), count=3, seed=3, format="png")
    assert [one.seed for one in several] == [3, 4, 5]
    assert several[1].photo == made.photo


def test_it_raises_the_servers_own_words(client):
    with pytest.raises(Refusal) as caught:
        client.segment(b"not an image")
    assert (caught.value.status, caught.value.code) == (400, "not_an_image")
    assert "PNG, JPEG" in caught.value.hint


def test_a_server_that_is_not_there_is_a_sentence_too():
    with pytest.raises(Refusal, match="does not answer"):
        Client("http://127.0.0.1:9").models()


def test_awaited_it_gives_the_same(server, client):
    async def both():
        async with AsyncClient(server.url) as fewpair:
            return await asyncio.gather(fewpair.segment(file_of(ramp())), fewpair.synthesize(file_of(stripes()), seed=4), fewpair.models())

    label, made, models = asyncio.run(both())
    assert label == client.segment(file_of(ramp()))
    assert made == client.synthesize(file_of(stripes()), seed=4)
    assert models == client.models()
