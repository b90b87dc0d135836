"""How pictures may be sent to /v1 over HTTP: as the bare file, and several in a form or a ZIP."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.serving.pictures import file_of, noise, pixels_of, ramp, stripes, zip_of
from tests.serving.test_server import error_of, segment, synthesize
from tests.serving.test_translator import brightness_ids


def raw(http, path, body, kind="application/octet-stream", **query):
    return http.post(path, content=body, headers={"content-type": kind}, params=query)


def unzipped(response):
    assert response.headers["content-type"] == "application/zip", response.text
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def index_of(response):
    return json.loads(unzipped(response)["index.json"])["answers"]


@pytest.mark.parametrize("kind", ["image/png", "image/x-unheard-of", "application/octet-stream"])
def test_a_bare_file_is_translated_with_the_parameters_of_the_query(http, kind):
    response = raw(http, "/v1/segment", file_of(ramp()), kind, output="ids")
    assert np.array_equal(pixels_of(response.content), brightness_ids(ramp()))


def test_parameters_of_the_body_overrule_those_of_the_query(http):
    files = {"image": file_of(ramp())}
    response = http.post("/v1/segment?output=json&model=fixed", files=files, data={"output": "ids"})
    assert np.array_equal(pixels_of(response.content).shape, (45, 61))
    assert response.headers["x-model"] == "fixed"


@pytest.mark.parametrize(
    "kind", ["text/html", "application/json", "application/x-www-form-urlencoded", "", "application/vnd.bentoml+pickle"]
)
def test_a_body_of_another_type_is_a_415(http, kind):
    error = error_of(raw(http, "/v1/segment", file_of(ramp()), kind), 415)
    assert error["code"] == "unsupported_media_type"
    assert error["message"] == (
        f"a body of the type {kind!r} is not read." if kind else "the body has no Content-Type."
    )


def test_a_misspelt_or_repeated_parameter_of_the_query_is_a_400(http):
    assert "'ouput'" in error_of(raw(http, "/v1/segment", file_of(ramp()), ouput="ids"), 400)["message"]
    assert error_of(raw(http, "/v1/segment", file_of(ramp()), output=["ids", "json"]), 400)["code"] == "repeated_field"


def test_a_form_that_is_broken_or_holds_too_much_is_refused_in_our_words(http):
    assert error_of(raw(http, "/v1/segment", b"x", "multipart/form-data"), 400)["code"] == "broken_form"
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b--\r\n'
    for path in ("/segment", "/v1/segment"):
        undefined = raw(http, path, body, "multipart/form-data; boundary=b; charset=undefined")
        assert error_of(undefined, 400)["code"] == "broken_form"
    assert error_of(segment(http, "/v1", model="x" * 2**21), 413)["code"] == "too_many_bytes"
    files = [("image", (f"{number}.png", file_of(ramp(2, 2)))) for number in range(6)]
    assert error_of(http.post("/v1/segment", files=files), 413)["code"] == "too_many_pictures"


def test_an_empty_name_of_a_model_stands_for_the_default_and_no_other_parameter_may_be_empty(http):
    assert segment(http, "/v1", model="").headers["x-model"] == "tiny"
    assert "output" in error_of(segment(http, "/v1", output=""), 400)["message"]


def test_the_limits_are_those_of_uploads(http):
    assert error_of(raw(http, "/v1/segment", b"0" * (2**20 + 2**17)), 413)["code"] == "too_many_bytes"
    large = file_of(Image.new("L", (6000, 5000)))
    assert error_of(raw(http, "/v1/segment", large), 413)["code"] == "too_many_pixels"


class TestSeveralPictures:
    def test_several_files_of_a_form_come_back_as_a_zip_with_an_index(self, http):
        files = [("image", ("one.jpg", file_of(ramp()))), ("image", ("deep/two.png", file_of(noise())))]
        response = http.post("/v1/segment", files=files, data={"output": "ids"})
        found = unzipped(response)
        assert list(found) == ["one.png", "deep/two.png", "index.json"]
        assert np.array_equal(pixels_of(found["one.png"]), brightness_ids(ramp()))
        assert np.array_equal(pixels_of(found["deep/two.png"]), brightness_ids(noise()))
        index = json.loads(found["index.json"])["answers"]
        assert index[1] == {"name": "deep/two.png", "file": "deep/two.png", "model": "tiny", "tiling": "none"}
        assert response.headers["x-failed"] == "0"

    @pytest.mark.parametrize("face", ["", "/v1"])
    def test_a_zip_of_photos_comes_back_as_a_zip(self, http, face):
        photos = {"a.jpg": file_of(ramp()), "sub/b.jpg": file_of(noise()), "__MACOSX/._a.jpg": b"litter", "sub/": b""}
        found = unzipped(segment(http, face, zip_of(photos)))
        assert list(found) == ["a.png", "sub/b.png", "index.json"]
        assert found["a.png"] == segment(http, face).content

    def test_a_zip_may_be_the_whole_body(self, http):
        found = unzipped(
            raw(http, "/v1/segment", zip_of({"a.jpg": file_of(ramp())}), "application/zip", output="polygons")
        )
        assert json.loads(found["a.json"])["images"][0]["file_name"] == "a.jpg"

    def test_a_broken_picture_has_its_error_and_the_others_their_answers(self, http):
        photos = {
            "a.jpg": file_of(ramp()),
            "notes.txt": b"hello",
            "cut.png": file_of(noise())[:900],
            "z.jpg": file_of(noise()),
        }
        response = segment(http, "/v1", zip_of(photos))
        a, notes, cut, z = index_of(response)
        assert [answer["error"]["code"] for answer in (notes, cut)] == ["not_an_image", "broken_image"]
        answers = unzipped(response)
        assert answers[a["file"]] == segment(http, "/v1").content
        assert answers[z["file"]] == segment(http, "/v1", file_of(noise())).content
        assert response.headers["x-failed"] == "2"

    def test_what_is_wrong_with_the_request_is_not_told_of_each_picture(self, http):
        error_of(segment(http, "/v1", zip_of({"a": file_of(ramp()), "b": file_of(ramp())}), model="nope"), 404)

    def test_a_label_map_gives_the_same_bytes_at_every_place_in_a_list(self, http):
        alone = synthesize(http, "/v1", seed="5", format="webp").content
        files = [
            ("image", (f"{number}.png", file_of(stripes(*size)))) for number, size in enumerate([(10, 12), (), ()])
        ]
        response = http.post("/v1/synthesize", files=files, data={"seed": "5", "format": "webp"})
        answers = unzipped(response)
        assert [answers[f"{number}.webp"] == alone for number in range(3)] == [False, True, True]
        assert {(answer["seed"], answer["spelling"]) for answer in index_of(response)} == {(5, "ids")}

    def test_several_photos_of_each_label_map_are_named_by_their_seeds(self, http):
        files = [("image", ("a.png", file_of(stripes()))), ("image", ("b.png", file_of(stripes())))]
        found = unzipped(http.post("/v1/synthesize", files=files, data={"seed": "3", "count": "2"}))
        assert list(found) == ["a-seed-3.jpg", "a-seed-4.jpg", "b-seed-3.jpg", "b-seed-4.jpg", "index.json"]
        assert found["a-seed-4.jpg"] == synthesize(http, "/v1", seed="4").content == found["b-seed-4.jpg"]

    def test_files_of_one_name_all_come_back(self, http):
        files = [("image", (name, file_of(ramp()))) for name in ("a.jpg", "a.png", "index.json")]
        response = http.post("/v1/segment", files=files, data={"output": "json"})
        assert list(unzipped(response)) == ["a.json", "a-2.json", "index-2.json", "index.json"]

    def test_no_name_leads_out_of_the_answers(self, http):
        name, photo = "../../etc/passwd", file_of(ramp())
        for response in (
            http.post("/v1/segment", files=[("image", (name, photo))] * 2),
            segment(http, "/v1", zip_of({name: photo})),
        ):
            assert "etc/passwd.png" in unzipped(response)

    def test_too_many_pictures_are_a_413(self, http):
        photos = {f"{number}.png": file_of(ramp(2, 2)) for number in range(6)}
        assert error_of(segment(http, "/v1", zip_of(photos)), 413)["code"] == "too_many_pictures"
        assert (
            error_of(raw(http, "/v1/segment", zip_of({f"{n}": b"" for n in range(3000)})), 413)["code"]
            == "too_many_pictures"
        )

    def test_too_many_pixels_in_all_are_told_of_the_pictures_that_are_too_many(self, http):
        photos = {name: file_of(ramp(200, 300)) for name in "abc"}
        answers = index_of(segment(http, "/v1", zip_of(photos)))
        codes = [answer.get("error", {}).get("code") for answer in answers]
        assert codes == [None, "too_many_pixels_in_all", "too_many_pixels_in_all"]
