"""A model on arrays: to its scale by the manifest's rule, and back to the upload's size."""

import threading
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

from serving.errors import ModelError, Refusal
from serving.imaging.domain import Resize
from serving.imaging.resize import from_model, to_model
from serving.models.model import RUN_FAILURES, CancelToken, draw_noise
from tests.serving.backends import answer_of, model_of
from tests.serving.factory import CLASSES, rewired, signed, write_model
from tests.serving.pictures import noise, ramp, stripes
from tests.serving.slow import write_slow_model

SIZES = [(1, 1), (3, 7), (45, 61), (64, 96), (200, 33)]


def brightness_ids(photo: np.ndarray) -> np.ndarray:
    grey = photo.astype(np.float64).mean(axis=2)
    return ((grey >= 85).astype(int) + (grey >= 170)).astype(np.uint8)


def test_without_a_resize_rule_the_answer_is_exact_at_every_size(tmp_path):
    model = model_of(write_model(tmp_path / "tiny", noise=False, multiple_of=16))
    palette = np.array([row["color"] for row in CLASSES], np.uint8)
    for size in SIZES:
        label, confidence = answer_of(model, "to_label", ramp(*size))
        assert np.array_equal(label, brightness_ids(ramp(*size)))
        assert confidence.shape == size
        assert np.array_equal(answer_of(model, "to_photo", stripes(*size))[0], palette[stripes(*size)])


def test_the_exact_rule_is_pillows_bicubic_there_and_nearest_back(tmp_path):
    resize = {"rule": "exact", "height": 32, "width": 48, "filter": "bicubic"}
    model = model_of(write_model(tmp_path / "tiny", resize=resize, multiple_of=20))
    for size in SIZES:
        photo = noise(*size)
        small = np.asarray(Image.fromarray(photo).resize((48, 32), Image.Resampling.BICUBIC))
        large = Image.fromarray(brightness_ids(small)).resize((size[1], size[0]), Image.Resampling.NEAREST)
        assert np.array_equal(answer_of(model, "to_label", photo)[0], np.asarray(large))


def test_the_fit_rule_keeps_the_aspect_ratio():
    resize = Resize("fit", 32, 48, "box")
    for size in SIZES:
        scaled = to_model(noise(*size), resize=resize, multiple_of=16, void=255)
        height, width = scaled.inner
        assert height <= 32
        assert width <= 48
        assert height == 32 or width == 48
        assert abs(height / width - size[0] / size[1]) <= max(1 / width, size[0] / size[1] / width) + 1 / height
        assert scaled.pixels.shape[0] % 16 == scaled.pixels.shape[1] % 16 == 0
        assert from_model(scaled.pixels, scaled, resize=resize).shape == (*size, 3)


def test_photos_are_padded_with_their_edge_and_label_maps_with_void():
    none = Resize("none", None, None, "bicubic")
    photo = to_model(ramp(5, 7), resize=none, multiple_of=8, void=3).pixels
    assert photo.shape == (8, 8, 3)
    assert (photo[:5, 7] == ramp(5, 7)[:, 6]).all()
    label = to_model(stripes(5, 7), resize=none, multiple_of=8, void=3).pixels
    assert (label[5:] == 3).all()
    assert (label[:, 7] == 3).all()


def test_equal_seeds_give_equal_photos_and_other_seeds_others(tmp_path):
    model, again = model_of(write_model(tmp_path / "tiny")), model_of(tmp_path / "tiny", threads=2)
    one, same, other = (
        answer_of(chosen, "to_photo", stripes(), seed=seed)[0] for chosen, seed in ((model, 7), (again, 7), (model, 8))
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_noise_depends_on_the_seed_alone_and_is_standard_normal():
    drawn = draw_noise(11, (64, 8, 8))
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn, draw_noise(11, (64, 8, 8)))
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.std() - 1) < 0.05


def reflect(folder):
    """Have the to_label graph of a model reflect its input by two pixels and cut them off again."""
    nodes = [
        helper.make_node("Pad", ["plain", "pads"], ["padded"], mode="reflect"),
        helper.make_node("Slice", ["padded", "starts", "ends", "sides"], ["float"]),
    ]
    return rewired(folder, *nodes, pads=[0, 2, 2, 0, 0, 2, 2, 0], starts=[2, 2], ends=[-2, -2], sides=[1, 2])


def test_a_picture_that_is_too_small_for_the_graph_is_refused_with_its_reason(tmp_path):
    model = model_of(reflect(write_model(tmp_path / "tiny")))
    assert np.array_equal(answer_of(model, "to_label", ramp(3, 3))[0], brightness_ids(ramp(3, 3)))
    with pytest.raises(Refusal, match=r"does not run on 1 x 3 pixels: .*Pad reflect") as refusal:
        answer_of(model, "to_label", ramp(1, 3))
    assert (refusal.value.status, refusal.value.code) == (400, "unfit_size")


def mixed(folder):
    """Have the to_label graph of a model subtract the mean of the whole batch, so that samples depend on each other."""
    return rewired(
        folder,
        helper.make_node("ReduceMean", ["plain"], ["all"], keepdims=1),
        helper.make_node("Sub", ["plain", "all"], ["float"]),
    )


def test_a_model_may_share_its_runs_where_no_picture_shows_in_the_answer_to_another(tmp_path, caplog):
    assert model_of(write_model(tmp_path / "plain"), batch=4).batches
    assert not caplog.messages
    assert not model_of(mixed(write_model(tmp_path / "mixed")), batch=4).batches
    assert "mixed runs every picture alone" in caplog.text
    for options in ({"batch": 1}, {"batch": 4, "deterministic": True}):
        assert not model_of(tmp_path / "plain", **options).batches


def test_models_of_pictures_too_large_to_share_a_run_do_not(tmp_path):
    for height, shares in ((1024, False), (256, True)):
        resize = {"rule": "exact", "height": height, "width": 1024, "filter": "bicubic"}
        folder = write_model(tmp_path / f"of-{height}", resize=resize, directions=("to_label",))
        assert model_of(folder, batch=16).batches is shares


def test_deterministic_is_said_to_onnxruntime(tmp_path, monkeypatch):
    said, session_of = [], onnxruntime.InferenceSession

    def noted(graph, options, **named):
        said.append(
            (options.use_deterministic_compute, options.get_session_config_entry("session.intra_op.allow_spinning"))
        )
        return session_of(graph, options, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    folder = write_model(tmp_path / "tiny", directions=("to_label",))
    for deterministic in (False, True):
        model_of(folder, deterministic=deterministic)
    assert said == [(False, "0"), (True, "0")]


def test_a_graph_that_reaches_for_data_outside_of_its_file_is_not_loaded(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "tiny", directions=("to_label",))
    monkeypatch.chdir(folder)
    for beside in (folder, tmp_path):
        (beside / "secret.bin").write_bytes(np.float32(85).tobytes())
    plain = onnx.load(folder / "to_label.onnx")
    for where in ("secret.bin", f"{folder}/secret.bin", "../secret.bin"):
        graph = onnx.ModelProto()
        graph.CopyFrom(plain)
        (held,) = (tensor for tensor in graph.graph.initializer if tensor.name == "low")
        held.ClearField("raw_data")
        held.ClearField("float_data")
        held.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": where, "offset": "0", "length": "4"}.items():
            held.external_data.add(key=key, value=value)
        (folder / "to_label.onnx").write_bytes(graph.SerializeToString())
        with pytest.raises(ModelError, match="cannot be loaded"):
            model_of(signed(folder))


def test_a_model_that_takes_one_picture_at_a_time_is_served_all_the_same(tmp_path, caplog):
    folder = write_model(tmp_path / "single", directions=("to_label",))
    graph = onnx.load(folder / "to_label.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, folder / "to_label.onnx")
    model = model_of(signed(folder), batch=4)
    assert not model.batches
    assert "single runs every picture alone: it fails on 4 at once" in caplog.text
    assert np.array_equal(answer_of(model, "to_label", ramp(8, 8))[0], brightness_ids(ramp(8, 8)))


def test_each_picture_of_a_run_has_the_noise_of_its_own_seed(tmp_path):
    model = model_of(write_model(tmp_path / "tiny"))
    labels = np.stack([brightness_ids(ramp(12, 8)), brightness_ids(noise(12, 8))])
    together = model.run_batch("to_photo", labels, seeds=[5, 9])
    for index, seed in enumerate((5, 9)):
        assert np.array_equal(
            together["photo"][index], model.run_batch("to_photo", labels[index : index + 1], seeds=[seed])["photo"][0]
        )
    assert not np.array_equal(*(model.run_batch("to_photo", labels[:1], seeds=[seed])["photo"] for seed in (5, 9)))


def test_a_cancelled_run_ends_before_its_graph_does(tmp_path):
    """Six convolutions in a row: a cancel that works ends the run after the one that it is in."""
    model = model_of(write_slow_model(tmp_path / "slow", pytest.MonkeyPatch(), times=6))
    photo, cancel = np.zeros((1, 80, 80, 3), np.uint8), CancelToken()
    began = time.perf_counter()
    model.run_batch("to_label", photo, seeds=[0])
    whole = time.perf_counter() - began
    threading.Timer(whole / 10, cancel.cancel).start()
    with pytest.raises(RUN_FAILURES, match="terminate"):
        model.run_batch("to_label", photo, seeds=[0], cancel=cancel)
