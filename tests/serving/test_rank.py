"""POST /v1/rank: which photos to label next, over HTTP."""

import numpy as np

from serving.imaging.ranking import rank
from tests.serving.pictures import file_of, ramp, zip_of


def grey(level: int) -> bytes:
    return file_of(np.full((45, 61, 3), level, np.uint8))


def test_photos_of_which_the_model_is_least_sure_come_first_and_near_duplicates_last(http):
    photos = {"bright.png": grey(250), "dark.png": grey(20), "broken.png": b"no", "ramp.png": file_of(ramp())}
    photos["dark-2.png"] = grey(21)
    files = [("image", (name, body)) for name, body in photos.items()]
    for answer in (
        http.post("/v1/rank", files=files),
        http.post("/v1/rank", content=zip_of(photos), headers={"Content-Type": "application/zip"}),
    ):
        assert answer.status_code == 200
        report = answer.json()
        assert report["model"] == "tiny"
        assert [photo["name"] for photo in report["photos"]] == ["dark-2.png", "ramp.png", "bright.png", "dark.png"]
        reasons = [photo["reason"] for photo in report["photos"]]
        assert reasons[0] == "mean confidence 0.08, least sure of dark"
        assert reasons[3] == "similar class shares to dark-2.png"
        assert report["photos"][0]["uncertainty"] == 0.9176
        assert [(each["name"], each["error"]["code"]) for each in report["failed"]] == [("broken.png", "not_an_image")]


def test_a_model_without_confidence_cannot_rank(http):
    answer = http.post("/v1/rank?model=labels-only", files={"image": grey(20)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_confidence")


def test_photos_of_which_the_model_is_entirely_sure_are_ranked_too(http):
    answer = http.post("/v1/rank", files=[("image", (f"{level}.png", grey(level))) for level in (255, 254)])
    assert answer.status_code == 200
    assert [photo["uncertainty"] for photo in answer.json()["photos"]] == [0.0, 0.0039]


def test_copies_of_a_photo_are_listed_once_each():
    rows = np.repeat(np.random.default_rng(0).random((1, 576)), 5, axis=0)
    chosen, near = rank(rows, np.full(5, 0.5), 5)
    assert sorted([*chosen, *near]) == list(range(5))
    assert len(chosen) == 1
