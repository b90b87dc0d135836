"""The open inference protocol under /v2: tensors as JSON and as bytes, and the same answers as /segment."""

import asyncio
import contextlib
import json
import tracemalloc

import httpx
import numpy as np
import pytest

from serving.api.kserve.schemas import Tensor
from serving.api.kserve.tensors import JSON_LENGTH, parse, read_inputs
from serving.app import create_app
from serving.errors import Refusal
from serving.models.model import draw_noise
from serving.models.repository import EMPTY, reload_repository
from serving.settings import Settings
from tests.serving.factory import write_model
from tests.serving.pictures import file_of, noise, pixels_of, stripes
from tests.serving.test_translator import brightness_ids


def tensor(name, values, *, datatype="UINT8", **changes):
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "data": values.ravel().tolist(), **changes}


def infer(http, model, *inputs, **more):
    return http.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **more})


def infer_bytes(http, model, *arrays, length=None, **more):
    """With every input as bytes behind the JSON: (name, array) each."""
    inputs = [
        {
            "name": name,
            "shape": list(values.shape),
            "datatype": {"u": "UINT8", "f": "FP32"}[values.dtype.kind],
            "parameters": {"binary_data_size": values.nbytes},
        }
        for name, values in arrays
    ]
    text = json.dumps({"inputs": inputs, **more}).encode()
    body = b"".join([text, *(values.tobytes() for _, values in arrays)])
    return http.post(
        f"/v2/models/{model}/infer", content=body, headers={JSON_LENGTH: str(len(text) if length is None else length)}
    )


def outputs_of(response):
    """The tensors of an answer, in their order."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(JSON_LENGTH, len(response.content)))
    behind, found = response.content[length:], {}
    for output in json.loads(response.content[:length])["outputs"]:
        assert output["datatype"] == "UINT8"
        size = output.get("parameters", {}).get("binary_data_size")
        values = np.array(output["data"], np.uint8) if size is None else np.frombuffer(behind[:size], np.uint8)
        behind = behind if size is None else behind[size:]
        found[output["name"]] = values.reshape(output["shape"])
    assert behind == b""
    return found


def refused(response, status):
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert response.headers["x-request-id"]
    return response.json()["error"]


def test_the_server_says_what_it_is_and_that_it_is_ready(http):
    assert http.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json()["ready"] is True


def test_each_direction_is_a_model_that_describes_the_tensors_of_its_graph(http):
    label = {"name": "label", "datatype": "UINT8", "shape": [-1, -1, -1]}
    confidence = {**label, "name": "confidence"}
    photo = {"name": "photo", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    drawn = {"name": "noise", "datatype": "FP32", "shape": [-1, 3]}
    described = http.get("/v2/models/tiny.to_label").json()
    assert (described["name"], described["inputs"], described["outputs"]) == (
        "tiny.to_label",
        [photo],
        [label, confidence],
    )
    assert http.get("/v2/models/tiny.to_photo").json()["inputs"] == [label, drawn]
    assert http.get("/v2/models/views.to_photo").json()["inputs"] == [{**photo, "name": "picture"}]
    assert http.get("/v2/models/labels-only").json()["inputs"] == [photo]
    assert http.get("/v2/models/fixed.to_photo/ready").json() == {"name": "fixed.to_photo", "ready": True}


def test_a_name_that_stands_for_no_direction_is_a_404_that_names_those_that_are_there(http):
    for name in ("nope", "tiny", "labels-only.to_photo", ".to_label"):
        error = refused(http.get(f"/v2/models/{name}"), 404)
        assert "fixed.to_label, fixed.to_photo, labels-only.to_label, tiny.to_label, tiny.to_photo" in error
    for name in ("broken", "broken.to_label"):
        assert "has no manifest.json" in refused(http.get(f"/v2/models/{name}/ready"), 404)


def test_a_photo_gives_the_label_map_that_segment_gives_as_json_and_as_bytes(http):
    photo = noise()
    ids = pixels_of(
        http.post("/segment", files={"image": file_of(photo)}, data={"output": "ids", "model": "tiny"}).content
    )
    by_json = infer(http, "tiny.to_label", tensor("photo", photo[None]), id="42")
    nested = infer(http, "tiny.to_label", tensor("photo", photo[None], data=photo[None].tolist()))
    by_bytes = infer_bytes(http, "tiny.to_label", ("photo", photo[None]), parameters={"binary_data_output": True})
    assert (by_json.json()["model_name"], by_json.json()["id"]) == ("tiny.to_label", "42")
    assert (by_json.headers["content-type"], by_bytes.headers["content-type"]) == (
        "application/json",
        "application/octet-stream",
    )
    for answer in map(outputs_of, (by_json, nested, by_bytes)):
        assert list(answer) == ["label", "confidence"]
        assert np.array_equal(answer["label"], ids[None])


def test_at_the_models_size_and_padded_to_its_multiple_the_answer_is_that_of_segment(http):
    photo = noise(32, 48)
    padded = np.pad(photo, ((0, 8), (0, 12), (0, 0)), mode="edge")
    for output, wanted in (("ids", "label"), ("confidence", "confidence")):
        answer = http.post("/segment", files={"image": file_of(photo)}, data={"output": output, "model": "fixed"})
        found = outputs_of(infer_bytes(http, "fixed.to_label", ("photo", padded[None])))
        assert np.array_equal(found[wanted][0, :32, :48], pixels_of(answer.content))


def test_the_outputs_come_in_the_order_and_the_form_they_were_asked_for(http):
    asked = [{"name": "confidence"}, {"name": "label", "parameters": {"binary_data": True}}]
    response = infer(http, "tiny.to_label", tensor("photo", noise()[None]), outputs=asked)
    told = json.loads(response.content[: int(response.headers[JSON_LENGTH])])["outputs"]
    assert [(output["name"], "data" in output) for output in told] == [("confidence", True), ("label", False)]
    assert np.array_equal(outputs_of(response)["label"][0], brightness_ids(noise()))
    only = infer(http, "tiny.to_label", tensor("photo", noise()[None]), outputs=asked[:1])
    assert list(outputs_of(only)) == ["confidence"]


def test_a_label_map_with_a_seed_gives_the_photo_that_synthesize_gives_and_the_noise_of_that_seed_too(http):
    labels = np.stack([stripes(), stripes()])
    by_seed = infer_bytes(http, "tiny.to_photo", ("label", labels), parameters={"seed": 7})
    assert by_seed.json()["parameters"] == {"seed": 7}
    drawn = np.stack([draw_noise(seed, (3,)) for seed in (7, 8)])
    by_noise = infer_bytes(http, "tiny.to_photo", ("label", labels), ("noise", drawn))
    assert "parameters" not in by_noise.json()
    in_json = infer(
        http, "tiny.to_photo", tensor("label", labels), tensor("noise", drawn.astype(float), datatype="FP32")
    )
    for index, seed in enumerate(("7", "8")):
        form = {"seed": seed, "format": "png", "model": "tiny"}
        photo = pixels_of(http.post("/synthesize", files={"image": file_of(stripes())}, data=form).content)
        for answer in map(outputs_of, (by_seed, by_noise, in_json)):
            assert np.array_equal(answer["photo"][index], photo)


def test_a_seed_that_was_not_given_comes_back(http):
    first = infer(http, "tiny.to_photo", tensor("label", stripes()[None]))
    again = infer(http, "tiny.to_photo", tensor("label", stripes()[None]), parameters=first.json()["parameters"])
    assert first.json()["outputs"] == again.json()["outputs"]


PHOTO = np.zeros((1, 2, 2, 3), np.uint8)
LABEL = np.zeros((1, 2, 2), np.uint8)
NOISE = tensor("noise", np.zeros((1, 3)), datatype="FP32")


@pytest.mark.parametrize(
    ("inputs", "more", "words"),
    [
        ([], {}, "inputs: List should have at least 1 item"),
        ([tensor("photo", PHOTO, datatype="FP32")], {}, "the input photo is UINT8, not 'FP32'"),
        ([tensor("photo", PHOTO[0])], {}, "has the shape [-1, -1, -1, 3], which [2, 2, 3] is not"),
        ([tensor("photo", PHOTO[:, :0])], {}, "inputs.0.shape.1: Input should be greater than or equal to 1"),
        ([tensor("photo", PHOTO, shape=[1, 10**3000, 10**3000, 3])], {}, "shape.1: Input should be less than or equal"),
        ([tensor("image", PHOTO)], {}, "there is no input 'image'"),
        ([tensor("photo", PHOTO), tensor("photo", PHOTO)], {}, "more than once"),
        ([tensor("photo", PHOTO, data=None)], {}, "neither data nor binary_data_size"),
        ([tensor("photo", PHOTO, data=[[0] * 6, [0] * 5])], {}, "neither flat nor nested as its shape [1, 2, 2, 3]"),
        ([tensor("photo", PHOTO, data=[[0] * 6] * 2)], {}, "is neither flat nor nested as its shape"),
        ([tensor("photo", PHOTO, data=[256] * 12)], {}, "not whole numbers from 0 to 255"),
        ([tensor("photo", PHOTO, data=[10**30] * 12)], {}, "not whole numbers from 0 to 255"),
        ([tensor("photo", PHOTO, data=[True] * 12)], {}, "holds values that are not numbers"),
        ([tensor("photo", PHOTO)], {"outputs": [{"name": "depth"}]}, "there is no output 'depth'"),
        ([tensor("photo", PHOTO)], {"outputs": [{"name": "label"}] * 2}, "requested twice"),
        ([tensor("photo", PHOTO)], {"parameters": {"binary_data_output": "yes"}}, "should be a valid boolean"),
        ([tensor("photo", PHOTO)], {"id": 42}, "id: Input should be a valid string"),
        ([tensor("label", LABEL + 9)], {}, "ids that belong to no class: 9 (4 pixels"),
        ([NOISE], {}, "the input label is missing"),
        ([tensor("label", LABEL), {**NOISE, "shape": [2, 3]}], {}, "of different numbers: [1, 2]"),
        ([tensor("label", LABEL), NOISE], {"parameters": {"seed": 1}}, "both a seed and noise"),
        ([tensor("label", LABEL), {**NOISE, "data": [1e300, 0, 0]}], {}, "not finite"),
        ([tensor("label", LABEL), {**NOISE, "data": ["a", 0, 0]}], {}, "holds values that are not numbers"),
        ([tensor("label", LABEL)], {"parameters": {"seed": -1}}, "parameters.seed: Input should be greater"),
    ],
)
def test_tensors_that_are_not_the_models_are_refused_with_what_is_wrong(http, inputs, more, words):
    model = "tiny.to_photo" if {"label", "noise"} & {one["name"] for one in inputs} else "tiny.to_label"
    assert words in refused(infer(http, model, *inputs, **more), 400)


def test_long_strings_as_data_take_no_more_memory_than_they_are_sent_with():
    sent = Tensor(name="photo", shape=[1, 10, 10, 3], datatype="UINT8", data=["a" * 10**6] + [""] * 299)
    tracemalloc.start()
    with pytest.raises(Refusal, match="holds values that are not numbers"):
        read_inputs([sent], memoryview(b""))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_sides_that_are_no_multiples_are_refused_with_the_size_to_pad_to(http):
    error = refused(infer_bytes(http, "fixed.to_label", ("photo", noise(32, 48)[None])), 400)
    assert "multiples of 20" in error
    assert "Pad to 40 x 60" in error


def test_what_is_over_a_limit_is_a_413_before_it_is_read(http):
    assert "6 pictures are over the limit" in refused(
        infer(http, "tiny.to_label", tensor("photo", np.zeros((6, 1, 1, 3), np.uint8))), 413
    )
    large = {"name": "photo", "shape": [1, 6000, 6000, 3], "datatype": "UINT8", "data": [0]}
    assert "36000000 pixels are over the limit of 25000000" in refused(infer(http, "tiny.to_label", large), 413)
    wide = np.zeros((1, 900, 900), np.uint8)
    assert "Ask for binary_data" in refused(infer_bytes(http, "tiny.to_photo", ("label", wide)), 413)
    assert (
        infer_bytes(http, "tiny.to_photo", ("label", wide), parameters={"binary_data_output": True}).status_code == 200
    )
    assert "MiB" in refused(http.post("/v2/models/tiny.to_label/infer", content=b"0" * 1_200_000), 413)


def test_bytes_that_do_not_fit_their_json_are_refused(http):
    name, sent = "tiny.to_label", ("photo", PHOTO)
    assert "body has" in refused(infer_bytes(http, name, sent, length=10_000), 400)
    assert "Invalid JSON" in refused(infer_bytes(http, name, sent, length=10), 400)
    assert "valid integer" in refused(infer_bytes(http, name, sent, length="ten"), 400)
    assert "greater than or equal" in refused(infer_bytes(http, name, sent, length="-1"), 400)
    described = tensor("photo", PHOTO, data=None, parameters={"binary_data_size": 12})
    assert "12 bytes after the JSON, where 0 are left" in refused(infer(http, name, described), 400)
    assert "takes 12" in refused(infer(http, name, {**described, "parameters": {"binary_data_size": 11}}), 400)
    assert "both as data and as binary_data_size" in refused(infer(http, name, {**described, "data": [0] * 12}), 400)
    text = json.dumps({"inputs": [tensor("photo", PHOTO)]}).encode()
    left = http.post(f"/v2/models/{name}/infer", content=text + b"more", headers={JSON_LENGTH: str(len(text))})
    assert "4 bytes follow the JSON" in refused(left, 400)


def test_a_body_that_is_no_request_is_a_400(http):
    for body in (b"", b"[]", b"null", b"\xff", b'{"inputs": [NaN]}', b"[" * 100_000, b'{"inputs": 1}'):
        refused(http.post("/v2/models/tiny.to_label/infer", content=body), 400)


def test_every_refusal_under_v2_has_the_shape_of_the_protocol(http):
    for method, path, status in (("GET", "/v2/nowhere", 404), ("DELETE", "/v2", 405)):
        assert path in refused(http.request(method, path), status)


def test_json_of_more_values_than_are_read_is_refused_without_reading_it():
    with pytest.raises(Refusal, match="more than 2000000 values") as refusal:
        parse(b'{"inputs": [' + b"[]," * 2_000_000, None)
    assert refusal.value.status == 413


def app_of(folder, **settings):
    """The app with the models of a folder, without a server around it."""
    app = create_app(Settings(models=folder, device="cpu", ui=False, **settings))
    app.state.backend.models, app.state.backend.not_ready_reason = reload_repository(EMPTY, app.state.settings), None
    return app


def asked(app, ask):
    """What `ask` returns, given a client of the app."""

    async def with_client():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=60) as client:
            return await ask(client)

    return asyncio.run(with_client())


def test_a_large_batch_is_run_in_pieces_so_that_others_get_to_the_device_in_between(tmp_path):
    write_model(tmp_path / "tiny")
    app = app_of(tmp_path)
    runs: list[int] = []
    app.state.backend.scheduler.on_run = runs.append
    photos = np.stack([np.kron(noise(), np.ones((12, 12, 1), np.uint8)) + np.uint8(index) for index in range(5)])
    assert 2**20 // 3 < photos[0, ..., 0].size <= 2**20 // 2  # two fit into a megapixel

    async def ask(client):
        return await infer_bytes(client, "tiny.to_label", ("photo", photos), parameters={"binary_data_output": True})

    together = outputs_of(asked(app, ask))["label"]
    assert np.array_equal(together, np.stack([brightness_ids(photo) for photo in photos]))
    assert runs == [2, 2, 1]


def test_a_full_server_refuses_at_once_with_when_to_come_back_and_a_server_without_models_is_not_ready(tmp_path):
    write_model(tmp_path / "tiny")
    app = app_of(tmp_path, queue=0, batch=1)

    async def ask(client):
        backend = app.state.backend
        backend.not_ready_reason = "the models are being loaded"
        not_ready = await client.get("/v2/health/ready")
        backend.not_ready_reason = None
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(backend.scheduler.admit())
            full = await client.post("/v2/models/tiny.to_label/infer", json={"inputs": [tensor("photo", PHOTO)]})
        return not_ready, full

    not_ready, full = asked(app, ask)
    assert (not_ready.status_code, not_ready.json()) == (503, {"error": "the models are being loaded"})
    assert (full.status_code, full.headers["retry-after"]) == (503, "1")
    assert "already has 3 requests waiting" in full.json()["error"]
