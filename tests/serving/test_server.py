"""A real server process over HTTP: both faces of the API, their answers and their refusals."""

import io
import json
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.serving.factory import CLASSES
from tests.serving.pictures import file_of, pixels_of, ramp, stripes
from tests.serving.test_translator import brightness_ids

FACES = ["", "/v1"]
PALETTE = np.array([row["color"] for row in CLASSES], np.uint8)


def segment(http, face, photo=None, **fields):
    return http.post(f"{face}/segment", files={"image": file_of(ramp()) if photo is None else photo}, data=fields)


def synthesize(http, face, label=None, **fields):
    return http.post(f"{face}/synthesize", files={"image": file_of(stripes()) if label is None else label}, data=fields)


def error_of(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["message"]
    assert response.headers["x-request-id"]
    return error


@pytest.mark.parametrize("face", FACES)
class TestBothFaces:
    def test_a_photo_gives_its_label_map_as_one_file_of_ids_and_colours(self, http, face):
        response = segment(http, face)
        assert response.headers["content-type"] == "image/png"
        assert response.headers["x-model"] == "tiny"
        assert np.array_equal(pixels_of(response.content), brightness_ids(ramp()))
        assert np.array_equal(
            np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB")), PALETTE[brightness_ids(ramp())]
        )

    def test_a_photo_gives_ids_overlay_and_confidence(self, http, face):
        ids = segment(http, face, output="ids").content
        assert Image.open(io.BytesIO(ids)).mode == "L"
        assert np.array_equal(pixels_of(ids), brightness_ids(ramp()))
        assert np.array_equal(pixels_of(segment(http, face, output="confidence").content), ramp()[..., 0])
        overlay = segment(http, face, output="overlay", opacity="0.25")
        assert overlay.headers["content-type"] == "image/jpeg"
        expected = 0.75 * ramp() + 0.25 * PALETTE[brightness_ids(ramp())]
        assert np.abs(pixels_of(overlay.content) - expected).mean() < 2

    def test_a_label_map_gives_a_photo_and_the_same_seed_the_same_bytes(self, http, face):
        first, again, other = (synthesize(http, face, seed=seed) for seed in ("7", "7", "8"))
        assert first.headers["content-type"] == "image/jpeg"
        assert first.headers["x-seed"] == "7"
        assert first.content == again.content
        assert first.content != other.content

    def test_a_seed_that_was_not_given_comes_back(self, http, face):
        first = synthesize(http, face, format="png")
        again = synthesize(http, face, format="png", seed=first.headers["x-seed"])
        assert first.content == again.content

    def test_several_photos_come_as_a_zip_of_the_photos_of_their_seeds(self, http, face):
        response = synthesize(http, face, seed="7", count="3", format="webp")
        assert response.headers["content-type"] == "application/zip"
        assert response.headers["x-seed"] == "7,8,9"
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            assert archive.namelist() == [f"tiny-seed-{seed}.webp" for seed in (7, 8, 9)]
            assert archive.read("tiny-seed-8.webp") == synthesize(http, face, seed="8", format="webp").content

    def test_a_photo_s_style_stands_in_for_the_seed(self, http, face):
        photo = np.broadcast_to(np.array([255, 0, 51], np.uint8), (9, 7, 3))
        answer = http.post("/v1/style", data={"model": "tiny"}, files={"image": file_of(photo)})
        assert answer.json() == {"model": "tiny", "style": [1.0, 0.0, 0.2]}
        made = synthesize(http, face, model="tiny", style="1.0,1e-05,0.2", format="png")
        query = http.post(
            f"{face}/synthesize?model=tiny&style=1.0,1e-05,0.2&format=png", files={"image": file_of(stripes())}
        )
        assert query.content == made.content
        assert "x-seed" not in made.headers
        expected = np.clip(PALETTE[stripes()] + np.array([30.0, 0.0, 6.0]), 0, 255)
        assert np.abs(pixels_of(made.content) - expected).max() <= 1

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"style": "1,2"}, "unfit_style"),
            ({"style": "1,2,3", "seed": "1"}, "style_and_seed"),
            ({"style": "1,2,3", "count": "2"}, "style_and_seed"),
            ({"style": "1,2,nan"}, "bad_request"),
            ({"style": "1,2,3e9"}, "bad_request"),
            ({"style": "red"}, "bad_request"),
        ],
    )
    def test_a_style_that_does_not_fit_is_refused(self, http, face, fields, code):
        assert error_of(synthesize(http, face, model="tiny", **fields), 400)["code"] == code

    def test_colours_and_ids_give_the_same_photo_and_it_is_said_which_was_read(self, http, face):
        by_ids = synthesize(http, face, seed="1", format="png")
        by_colours = synthesize(http, face, file_of(PALETTE[stripes()]), seed="1", format="png")
        assert by_ids.content == by_colours.content
        assert [response.headers["x-label-spelling"] for response in (by_ids, by_colours)] == ["ids", "colours"]

    def test_stray_colours_are_refused_or_snapped_when_asked(self, http, face):
        smeared = file_of(PALETTE[stripes()], "JPEG")
        assert error_of(synthesize(http, face, smeared), 400)["code"] == "lossy_label_map"
        assert synthesize(http, face, smeared, snap="true").headers["x-label-spelling"] == "snapped colours"

    def test_the_model_is_the_one_that_is_named(self, http, face):
        assert segment(http, face, model="fixed", output="ids").headers["x-model"] == "fixed"

    def test_an_unknown_model_is_a_404_that_names_those_that_exist(self, http, face):
        for name in ("nope", "true", "null", "-1", "../tiny", "1.10", "1e3", "[]", "{}", '"tiny"'):
            error = error_of(segment(http, face, model=name), 404)
            assert error["code"] == "unknown_model"
            assert "fixed, labels-only, tiny" in error["hint"]

    def test_a_broken_model_is_a_404_with_its_reason_and_without_the_servers_path(self, http, face):
        assert error_of(segment(http, face, model="broken"), 404)["hint"].startswith("broken has no manifest.json.")

    def test_a_direction_that_is_not_offered_is_a_400_that_names_who_offers_it(self, http, face):
        assert "fixed, tiny" in error_of(synthesize(http, face, model="labels-only"), 400)["hint"]

    def test_several_photos_of_a_model_without_noise_are_a_400(self, http, face):
        assert error_of(synthesize(http, face, model="fixed", count="2"), 400)["code"] == "no_noise"

    @pytest.mark.parametrize("kind", ["image/png", "text/html"])
    def test_the_declared_type_of_an_upload_is_not_believed(self, http, face, kind):
        response = http.post(
            f"{face}/segment",
            files={"image": ("street.jpg", file_of(ramp(), "WEBP", lossless=True), kind)},
            data={"output": "ids"},
        )
        assert np.array_equal(pixels_of(response.content), brightness_ids(ramp()))

    def test_an_upload_over_the_limit_is_refused_with_413(self, http, face):
        assert error_of(segment(http, face, b"0" * (2**20 + 2**17)), 413)["code"] == "too_many_bytes"

    def test_an_upload_of_undeclared_length_over_the_limit_is_refused_with_413(self, http, face):
        def body():
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
            yield from (b"0" * 2**17 for _ in range(10))
            yield b"\r\n--x--\r\n"

        response = http.post(
            f"{face}/segment", content=body(), headers={"content-type": "multipart/form-data; boundary=x"}
        )
        assert error_of(response, 413)["code"] == "too_many_bytes"

    @pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000, '{"a":' * 9000], ids=lambda value: value[:5])
    @pytest.mark.parametrize("field", ["model", "opacity", "strange"])
    def test_a_field_that_cannot_be_read_is_a_400(self, http, face, field, value):
        form = {"image": ("a.png", file_of(ramp())), field: (None, value)}
        error_of(http.post(f"{face}/segment", files=form), 400)

    def test_parameters_may_stand_in_the_query_and_are_never_ignored(self, http, face):
        asked = http.post(f"{face}/segment?output=json", files={"image": file_of(ramp())})
        assert asked.json() == segment(http, face, output="json").json()
        assert error_of(http.post(f"{face}/segment?ouput=json", files={"image": file_of(ramp())}), 400)

    def test_a_text_in_place_of_the_file_is_refused_and_never_fetched(self, http, face):
        for field in ("image", "ima\u0261e"):
            address = f"{http.base_url}livez"
            response = http.post(f"{face}/segment", files={"model": (None, "tiny"), field: (None, address)})
            assert error_of(response, 400)["code"] in ("not_an_image", "unknown_field")

    @pytest.mark.parametrize(
        "sent",
        [
            {"json": {"image": "/etc/passwd"}},
            {"content": b"--x\r\ngarbage", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            {"content": b"x", "headers": {"content-type": "application/vnd.bentoml+pickle"}},
            {"data": {"image": "http://127.0.0.1/"}},
            {"content": b""},
        ],
        ids=["json", "garbage", "no boundary", "pickle", "urlencoded", "nothing"],
    )
    def test_a_body_that_is_no_form_with_a_file_is_refused(self, http, face, sent):
        response = http.post(f"{face}/segment", **sent)
        error_of(response, response.status_code)
        assert response.status_code in (400, 415)

    @pytest.mark.parametrize(
        "fields",
        [
            {"output": "nonsense"},
            {"opacity": "2"},
            {"opacity": "NaN"},
            {"seed": "abc"},
            {"seed": "-1"},
            {"seed": "1.5"},
            {"count": "17"},
            {"count": "0"},
            {"format": "tiff"},
        ],
        ids=str,
    )
    def test_a_parameter_that_makes_no_sense_is_a_400_that_names_it(self, http, face, fields):
        asked = segment if set(fields) & {"output", "opacity"} else synthesize
        assert next(iter(fields)) in error_of(asked(http, face, **fields), 400)["message"]

    def test_a_file_in_another_field_is_told_that_the_field_is_called_image(self, http, face):
        error = error_of(http.post(f"{face}/segment", files={"file": file_of(ramp())}), 400)
        assert (error["code"], error["message"]) == (
            "unknown_field",
            "the field 'file' holds a file; the field is called image.",
        )

    def test_a_misspelt_field_is_a_400_that_names_it_and_those_that_exist(self, http, face):
        error = error_of(segment(http, face, ouput="ids"), 400)
        assert "'ouput'" in error["message"]
        assert "output" in error["hint"]

    def test_the_stages_are_timed(self, http, face):
        timed = segment(http, face).headers["server-timing"].split(", ")
        assert [stage.split(";")[0] for stage in timed] == ["wait", "decode", "run", "encode"]


def test_both_faces_give_the_same_bytes(http):
    assert segment(http, "").content == segment(http, "/v1").content
    assert synthesize(http, "", seed="3").content == synthesize(http, "/v1", seed="3").content


def test_the_models_are_listed_with_classes_sizes_figures_and_where_they_run(http):
    listed = http.get("/v1/models").json()
    models = {model["name"]: model for model in listed["models"]}
    assert set(models) == {"tiny", "fixed", "labels-only", "views"}
    assert models["tiny"]["provider"].endswith("ExecutionProvider")
    assert models["tiny"]["classes"] == CLASSES
    assert models["tiny"]["default_for"] == ["to_label", "to_photo"]
    assert models["tiny"]["metrics"]["val"]["mean_iou"] == 0.5
    assert models["fixed"]["size"] == [32, 48]
    assert (models["tiny"]["seeded"], models["fixed"]["seeded"]) == (True, False)
    assert [entry["name"] for entry in listed["broken"]] == ["broken"]
    assert listed["defaults"] == {"to_label": "tiny", "to_photo": "tiny"}


def test_one_model_comes_with_its_card(http):
    card = http.get("/v1/models/tiny").json()
    assert card["training"]["method"] == "by hand"
    error_of(http.get("/v1/models/nope"), 404)


def test_a_model_without_its_pairs_says_so(http):
    assert error_of(http.get("/v1/models/tiny/pairs"), 404)["code"] == "no_pairs"


def test_the_examples_of_a_model_are_served_and_only_those(http, models):
    (card,) = (row for row in http.get("/v1/models").json()["models"] if row["name"] == "tiny")
    assert card["examples"] == ["two-halves"]
    for ending, kind in (("jpg", "image/jpeg"), ("png", "image/png")):
        answer = http.get(f"/v1/models/tiny/examples/two-halves.{ending}")
        assert answer.headers["Content-Type"] == kind
        assert answer.content == (models / f"tiny/examples/two-halves.{ending}").read_bytes()
    for name in ("three.jpg", "two-halves.gif", "..%2Fmanifest.json"):
        error_of(http.get(f"/v1/models/tiny/examples/{name}"), 404)


@pytest.mark.parametrize(("header", "status"), [("bytes=90000000-", 416), ("bytes=abc", 400), ("words", 400)])
def test_a_range_that_a_file_does_not_have_or_that_cannot_be_read_is_named(http, header, status):
    answer = http.get("/v1/models/tiny/examples/two-halves.png", headers={"Range": header})
    assert error_of(answer, status)["code"] == "no_such_range"


def test_every_refusal_has_the_one_shape(http):
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/segment", 405), ("DELETE", "/v1/models", 405)):
        assert path in error_of(http.request(method, path), status)["message"]


def test_the_api_describes_itself_with_pages_that_need_no_internet(http):
    document = http.get("/v1/openapi.json").json()
    assert {"/v1/models", "/v1/segment", "/v1/jobs", "/v1/admin/reload", "/v2/models/{name}/infer"} <= set(
        document["paths"]
    )
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
            assert "422" not in operation["responses"]
    page = http.get("/v1/docs").text
    assert "https://" not in page
    for asset in ("/static_content/swagger-ui-bundle.js", "/static_content/swagger-ui.css"):
        assert asset in page
        assert http.get(asset).status_code == 200


def page_of(http):
    until = time.monotonic() + 120
    while (response := http.get("/ui/")).status_code == 503 and time.monotonic() < until:
        assert "prepared" in response.text
        time.sleep(0.5)
    return response


def test_the_page_is_there(http):
    response = page_of(http)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "<title>fewpair: " in response.text
    assert 'content="Gradio"' not in response.text
    assert f'property="og:image" content="{http.base_url}/ui/page/preview.jpg"' in response.text
    assert http.get("/ui/page/preview.jpg").headers["content-type"] == "image/jpeg"
    assert http.get("/ui").status_code in (200, 307)


@pytest.mark.parametrize(
    "request_line",
    [
        "POST upload",
        "POST process_recording",
        "GET file=http://127.0.0.1:9/x.png",
        "HEAD proxy=http://127.0.0.1:9/x.png",
        "POST queue/join",
        "POST run/predict",
        "GET heartbeat/a-visitor",
        "PUT a/../upload",
    ],
)
def test_the_page_takes_no_upload_fetches_no_url_and_runs_nothing_of_gradio(http, request_line):
    page_of(http)
    method, _, path = request_line.partition(" ")
    refused = http.request(method, f"/ui/gradio_api/{path}", files={"files": ("a.png", file_of(ramp()))})
    assert refused.status_code == 404
    assert method == "HEAD" or refused.json()["error"]["message"] == "Gradio's API is closed."


def test_the_page_reads_a_label_map_as_the_api_does(http):
    page_of(http)
    answer = http.post("/ui/map?model=tiny", content=file_of(stripes()))
    assert np.array_equal(pixels_of(answer.content), stripes())
    assert answer.headers["x-label-spelling"] == "ids"
    for content, model, code in (
        (b"words", "tiny", "not_an_image"),
        (file_of(stripes()), "gone", "unknown_model"),
        (file_of(ramp()), "views", "no_classes"),
    ):
        assert http.post(f"/ui/map?model={model}", content=content).json()["error"]["code"] == code


def test_the_number_of_series_does_not_grow_with_the_paths_asked_for(http):
    page_of(http)
    segment(http, "")
    http.get("/nowhere")
    before = len(http.get("/metrics").text.splitlines())
    for number in range(50):
        http.get(f"/random-{number}")
        http.get(f"/ui/assets/random-{number}.js")
        http.get(f"/v1/models/random-{number}")
        segment(http, "", model=f"random-{number}")
    metrics = http.get("/metrics").text
    assert len(metrics.splitlines()) - before < 80
    assert "random" not in metrics
    assert 'fewpair_requests_total{endpoint="/segment",method="POST",model="tiny",status="200"}' in metrics
    assert 'fewpair_stage_seconds_bucket{endpoint="/segment",le="0.001",stage="run"}' in metrics


def test_clients_mistakes_leave_no_traceback_in_the_log(http, server):
    before = len(server.log.read_text())
    segment(http, "", b"not an image")
    segment(http, "", output="nonsense")
    http.post("/segment", content=b"--x\r\ngarbage", headers={"content-type": "multipart/form-data; boundary=x"})
    assert "Traceback" not in server.log.read_text()[before:]


def test_a_model_without_styles_refuses_to_read_one(http):
    answer = http.post("/v1/style", data={"model": "fixed"}, files={"image": file_of(ramp())})
    assert error_of(answer, 400)["code"] == "no_style"


def test_the_styles_of_several_photos_come_as_a_zip(http):
    answer = http.post("/v1/style", files=[("image", (f"{name}.png", file_of(ramp()))) for name in "ab"])
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["a.json", "b.json", "index.json"]
        assert len(json.loads(archive.read("b.json"))["style"]) == 3
    tiled = http.post("/v1/style?tiles=never", files={"image": file_of(ramp())})
    assert error_of(tiled, 400)["code"] == "unknown_field"
