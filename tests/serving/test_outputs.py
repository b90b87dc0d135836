"""Outputs of `segment` over HTTP beside label maps: confidence, outlines, figures, boxes, and picture models."""

import numpy as np
import pytest

from tests.serving.pictures import file_of, noise, pixels_of, ramp
from tests.serving.test_regions import filled
from tests.serving.test_server import error_of, segment, synthesize
from tests.serving.test_translator import brightness_ids


def framed():
    """A dark photo with a bright square that holds a middle one."""
    photo = np.full((30, 40, 3), 10, np.uint8)
    photo[5:25, 10:30] = 250
    photo[10:20, 15:25] = 120
    return photo


def test_polygons_are_a_coco_document_whose_outlines_surround_the_pixels_of_their_class(http):
    response = segment(http, "/v1", file_of(framed()), output="polygons")
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert document["images"] == [{"id": 1, "file_name": document["images"][0]["file_name"], "width": 40, "height": 30}]
    assert [(row["id"], row["name"]) for row in document["categories"]] == [(0, "dark"), (1, "middle"), (2, "bright")]
    ids = np.full((30, 40), 255, np.uint8)
    for annotation in document["annotations"]:
        (outline,) = annotation["segmentation"]
        inside = filled(np.reshape(outline, (-1, 2)), ids.shape)
        assert inside.sum() == annotation["area"]
        ids[inside] = annotation["category_id"]
    assert np.array_equal(ids, brightness_ids(framed()))
    assert {(row["category_id"], *row["bbox"], row["area"], row["iscrowd"]) for row in document["annotations"]} == {
        (0, 0, 0, 40, 30, 800, 0),
        (2, 10, 5, 20, 20, 300, 0),
        (1, 15, 10, 10, 10, 100, 0),
    }


def test_polygons_of_a_model_at_its_own_scale_are_in_the_uploads_pixels(http):
    document = segment(http, "", file_of(ramp(90, 122)), model="fixed", output="polygons").json()
    ids = pixels_of(segment(http, "", file_of(ramp(90, 122)), model="fixed", output="ids").content)
    assert sum(annotation["area"] for annotation in document["annotations"]) == ids.size
    right = max(annotation["bbox"][0] + annotation["bbox"][2] for annotation in document["annotations"])
    assert right == 122


def test_smaller_regions_are_left_out_when_asked(http):
    every = segment(http, "/v1", file_of(noise()), output="polygons").json()["annotations"]
    large = segment(http, "/v1", file_of(noise()), output="polygons", min_area="20").json()["annotations"]
    assert [row["area"] for row in large] == [row["area"] for row in every if row["area"] >= 20]
    assert 0 < len(large) < len(every)


def test_the_json_tells_confidence_by_class_and_the_boxes_of_the_regions(http):
    report = segment(http, "/v1", file_of(framed()), output="json", min_area="200").json()
    sure = {entry["name"]: entry["mean_confidence"] for entry in report["classes"]}
    assert sure == {
        "dark": pytest.approx(10 / 255, abs=1e-4),
        "middle": pytest.approx(120 / 255, abs=1e-4),
        "bright": 0.9804,
    }
    assert report["regions_found"] == 2
    assert report["regions"] == [
        {"id": 0, "name": "dark", "area": 800, "box": [0, 0, 40, 30]},
        {"id": 2, "name": "bright", "area": 300, "box": [10, 5, 20, 20]},
    ]


def test_a_model_that_does_not_say_how_sure_it_is_refuses_confidence_and_leaves_it_out_of_the_figures(http):
    assert error_of(segment(http, "/v1", model="labels-only", output="confidence"), 400)["code"] == "no_confidence"
    report = segment(http, "/v1", model="labels-only", output="json").json()
    assert report["mean_confidence"] is None
    assert {entry["mean_confidence"] for entry in report["classes"]} == {None}


def test_an_area_that_makes_no_sense_is_a_400_that_names_it(http):
    for value in ("0", "1.5", "many"):
        assert "min_area" in error_of(segment(http, "/v1", output="polygons", min_area=value), 400)["message"]


def test_a_picture_model_answers_both_ways_and_over_the_photo(http):
    made = segment(http, "/v1", file_of(noise()), model="views")
    assert np.array_equal(pixels_of(made.content), 255 - noise())
    back = synthesize(http, "/v1", made.content, model="views", format="png")
    assert np.array_equal(pixels_of(back.content), noise())
    assert back.headers["x-label-spelling"] == "picture"
    half = pixels_of(segment(http, "/v1", file_of(ramp()), model="views", output="overlay", opacity="0.25").content)
    assert np.abs(half - (0.75 * ramp() + 0.25 * (255 - ramp()))).mean() < 2


def test_a_picture_model_has_no_classes(http):
    for output in ("ids", "confidence", "polygons", "json"):
        assert error_of(segment(http, "/v1", model="views", output=output), 400)["code"] == "no_classes"


def test_an_answer_calls_the_photo_by_the_name_it_was_sent_with(http):
    sent = {"image": ("tmp street 01.png", file_of(framed()))}
    answer = http.post("/segment", files=sent, data={"output": "polygons"})
    assert answer.json()["images"][0]["file_name"] == "tmp street 01.png"
