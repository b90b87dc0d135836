"""The protocol of Label Studio's ML backends over HTTP."""

import base64
import json

import httpx
import numpy as np
import pytest

from serving.errors import Refusal
from serving.imaging.annotations import brush_value
from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import running_server
from tests.serving.test_translator import brightness_ids
from trainer.data.formats import label_studio

LABELS = '<Label value="dark"/><Label value="bright"/><Label value="of the tool alone"/>'
IMAGE = '<!-- a comment --><Image name="photo" value="$street"/>'
BRUSH = f'<View>{IMAGE}<BrushLabels name="b" toName="photo">{LABELS}</BrushLabels></View>'
POLYGONS = BRUSH.replace("BrushLabels", "PolygonLabels")
PHOTO = ramp(40, 60)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A server with a folder of photos for Label Studio, and a secret beside it."""
    folder = tmp_path_factory.mktemp("label-studio")
    write_model(folder / "models" / "tiny")
    (folder / "photos" / "upload" / "1").mkdir(parents=True)
    (folder / "photos" / "upload" / "1" / "ab c.png").write_bytes(file_of(PHOTO))
    with (folder / "photos" / "video.mp4").open("wb") as video:
        video.truncate(2**33)  # more than there is memory for
    (folder / "secret.png").write_bytes(file_of(PHOTO))
    files = {"FEWPAIR_LABEL_STUDIO_FILES": str(folder / "photos")}
    with (
        running_server(folder / "models", folder / "server", "--no-ui", **files) as server,
        httpx.Client(base_url=f"{server.url}/label-studio/", timeout=60) as client,
    ):
        yield client


def predicted(client, config, *addresses):
    tasks = [{"id": number, "data": {"street": address}} for number, address in enumerate(addresses)]
    sent = {"tasks": tasks, "label_config": config, "project": "1.2", "params": {}}
    return client.post("predict", content=json.dumps(sent), headers={"Content-Type": "application/json"})


def imported(prediction, folder):
    """What `fewpair import` reads in an export with this prediction: (label, shape) of each region."""
    (folder / "export.json").write_text(
        json.dumps([{"data": {"image": "/data/upload/a.png"}, "predictions": [prediction]}])
    )
    (picture,) = label_studio.read(folder, [folder / "export.json"], None).pictures()
    assert picture.size == PHOTO.shape[:2]
    return [(shape.label, shape) for shape in picture.shapes]


def test_label_studio_connects_and_learns_at_once_where_no_label_fits(studio):
    assert studio.get("health").json() == {"status": "UP", "model_class": "tiny"}
    assert studio.post("setup", json={"project": "1.2", "schema": BRUSH}).json() == {"model_version": "tiny"}
    for config, code in (
        (BRUSH.replace("dark", "car").replace("bright", "road"), "no_common_label"),
        ("<View>", "bad_interface"),
        (f'<!DOCTYPE a [<!ENTITY b "c">]>{BRUSH}', "bad_interface"),
    ):
        answer = studio.post("setup", json={"schema": config})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"label_config": "\xff"}', 400, "bad_request"),
        (b'{"label_config": "\\ud800"}', 400, "bad_request"),
        (b"[" * 100_000, 400, "bad_request"),
        (b'{"label_config": ' + b"1" * 5000 + b"}", 400, "bad_request"),
        (b"[" + b"[]," * 1_000_000 + b"[]]", 413, "too_many_values"),
        (b"", 400, "empty_upload"),
    ],
)
@pytest.mark.parametrize("path", ["setup", "predict"])
def test_a_body_that_is_not_what_label_studio_sends_is_refused(studio, path, body, status, code):
    answer = studio.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_brush_predictions_are_the_label_map_in_the_interface_s_own_tags(studio, tmp_path):
    uri = f"data:image/png;base64,{base64.b64encode(file_of(PHOTO)).decode()}"
    addresses = (uri, "/data/upload/1/ab%20c.png", "http://studio:8080/data/local-files/?d=upload/1/ab%20c.png")
    answer = predicted(studio, BRUSH, *addresses).json()
    assert answer["model_version"] == "tiny"
    first, *others = answer["results"]
    assert others == [first, first]
    assert first["score"] == pytest.approx(PHOTO.mean() / 255, abs=0.01)  # the tiny model's confidence is brightness
    assert {(one["from_name"], one["to_name"]) for one in first["result"]} == {("b", "photo")}
    found = imported(first, tmp_path)
    assert {label for label, _ in found} == {"dark", "bright"}
    for label, shape in found:
        assert np.array_equal(shape.mask, brightness_ids(PHOTO) == {"dark": 0, "bright": 2}[label])
    darker, brighter = (
        next(one["score"] for one in first["result"] if name in one["value"]["brushlabels"])
        for name in ("dark", "bright")
    )
    assert darker < 85 / 255 < 170 / 255 <= brighter


def test_a_file_over_the_limit_is_not_read_whole_and_noise_is_no_brush(studio):
    answer = predicted(studio, BRUSH, "/data/local-files/?d=video.mp4")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_bytes")
    with pytest.raises(Refusal, match="too many regions"):
        brush_value(np.random.default_rng(0).random((1000, 1000)) < 0.5)


def test_polygon_predictions_outline_the_regions_in_percent(studio, tmp_path):
    (prediction,) = predicted(studio, POLYGONS, "/data/upload/1/ab%20c.png").json()["results"]
    ids = brightness_ids(PHOTO)
    for label, shape in imported(prediction, tmp_path):
        (x0, y0), (x1, y1) = shape.polygons[0].min(axis=0), shape.polygons[0].max(axis=0)
        ys, xs = np.nonzero(ids == {"dark": 0, "bright": 2}[label])
        assert np.allclose([x0, y0, x1, y1], [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=0.01)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/photo.png",
        "/data/local-files/?d=../secret.png",
        "/data/../secret.png",
        "/data/upload/1",
        "data:image/png;base64,a",
        "http://[",
        f"/data/upload/{'long' * 100}.png",
        "/data/upload/%ff.png",
        None,
    ],
)
def test_nothing_is_fetched_and_nothing_outside_the_folder_is_read(studio, address):
    answer = predicted(studio, BRUSH, address)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "photo_not_here")
