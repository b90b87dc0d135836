"""A model on arrays: to its scale by the manifest's rule, and back to the upload's size."""

import hashlib
import json
import logging
import threading
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

from serving import session
from serving.errors import DeviceError, ModelError, Refusal
from serving.manifest import Resize
from serving.scale import from_model, to_model
from serving.translator import RUN_FAILURES, Brake, ExportedModel, draw_noise, load_model
from tests.serving.factory import CLASSES, reflect, write_model
from tests.serving.pictures import noise, ramp, stripes
from tests.serving.slow import write_slow_model

SIZES = [(1, 1), (3, 7), (45, 61), (64, 96), (200, 33)]


def brightness_ids(photo: np.ndarray) -> np.ndarray:
    grey = photo.astype(np.float64).mean(axis=2)
    return ((grey >= 85).astype(int) + (grey >= 170)).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_without_a_resize_rule_the_answer_is_exact_at_every_size(tmp_path, size):
    model = load_model(write_model(tmp_path / "tiny", multiple_of=16), device="cpu", threads=1)
    label, confidence = model.to_label(ramp(*size))
    assert np.array_equal(label, brightness_ids(ramp(*size)))
    assert confidence.shape == size


@pytest.mark.parametrize("size", SIZES)
def test_the_exact_rule_is_pillows_bicubic_there_and_nearest_back(tmp_path, size):
    resize = {"rule": "exact", "height": 32, "width": 48, "filter": "bicubic"}
    model = load_model(write_model(tmp_path / "tiny", resize=resize, multiple_of=20), device="cpu", threads=1)
    photo = noise(*size)
    small = np.asarray(Image.fromarray(photo).resize((48, 32), Image.Resampling.BICUBIC))
    expected = np.asarray(Image.fromarray(brightness_ids(small)).resize((size[1], size[0]), Image.Resampling.NEAREST))
    assert np.array_equal(model.to_label(photo)[0], expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_fit_rule_keeps_the_aspect_ratio(size):
    resize = Resize("fit", 32, 48, "box")
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


@pytest.mark.parametrize("size", SIZES)
def test_a_label_map_becomes_a_photo_of_its_size(tmp_path, size):
    model = load_model(write_model(tmp_path / "tiny", noise=False, multiple_of=4), device="cpu", threads=1)
    palette = np.array([row["color"] for row in CLASSES], np.uint8)
    assert np.array_equal(model.to_photo(stripes(*size), seed=5), palette[stripes(*size)])


def test_equal_seeds_give_equal_photos_and_other_seeds_others(tmp_path):
    model = load_model(write_model(tmp_path / "tiny"), device="cpu", threads=1)
    again = load_model(tmp_path / "tiny", device="cpu", threads=2)
    assert np.array_equal(model.to_photo(stripes(), seed=7), again.to_photo(stripes(), seed=7))
    assert not np.array_equal(model.to_photo(stripes(), seed=7), model.to_photo(stripes(), seed=8))


def test_noise_depends_on_the_seed_alone_and_is_standard_normal():
    drawn = draw_noise(11, (64, 8, 8))
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn, draw_noise(11, (64, 8, 8)))
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.std() - 1) < 0.05


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine one with these libraries, whose onnxruntime is built for CUDA but falls back to the CPU."""
    start = onnxruntime.InferenceSession

    def pretend(*, libraries):
        monkeypatch.setattr(session, "_loads", lambda library: library in libraries)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory: None)
        monkeypatch.setattr(
            onnxruntime, "InferenceSession", lambda graph, options, providers: start(graph, options, providers=["CPUExecutionProvider"])
        )

    session._warn_once.cache_clear()
    yield pretend
    session._warn_once.cache_clear()


def test_a_driver_that_is_there_but_not_used_is_said_once_with_what_is_missing(tmp_path, machine, caplog):
    machine(libraries={"libcuda.so.1", "libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcufft.so.12", "libcurand.so.10"})
    with caplog.at_level(logging.WARNING):
        for name in ("one", "two"):
            load_model(write_model(tmp_path / name), device="auto", threads=1)
    assert len(caplog.messages) == 1
    assert "fell back to CPUExecutionProvider because libcudnn.so.9 cannot be loaded" in caplog.text
    assert "pip install '.[serve,cuda]' in a clone" in caplog.text
    with pytest.raises(DeviceError, match=r"libcudnn\.so\.9 cannot be loaded"):
        load_model(tmp_path / "one", device="cuda", threads=1)


def test_a_driver_beside_an_onnxruntime_for_the_cpu_only_is_said(tmp_path, machine, monkeypatch, caplog):
    machine(libraries={"libcuda.so.1"})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    load_model(write_model(tmp_path / "tiny"), device="auto", threads=1)
    assert "is built for the CPU only" in caplog.text


@pytest.mark.parametrize(("device", "libraries"), [("auto", set()), ("cpu", {"libcuda.so.1"})], ids=["no driver", "the CPU was asked for"])
def test_where_the_cpu_is_what_was_meant_nothing_is_said(tmp_path, machine, caplog, device, libraries):
    machine(libraries=libraries)
    load_model(write_model(tmp_path / "tiny"), device=device, threads=1)
    assert not caplog.messages


def test_a_picture_that_is_too_small_for_the_graph_is_refused_with_its_reason(tmp_path):
    model = load_model(reflect(write_model(tmp_path / "tiny")), device="cpu", threads=1)
    assert np.array_equal(model.to_label(ramp(3, 3))[0], brightness_ids(ramp(3, 3)))
    with pytest.raises(Refusal, match=r"does not run on 1 x 3 pixels: .*Pad reflect") as refusal:
        model.to_label(ramp(1, 3))
    assert (refusal.value.status, refusal.value.code) == (400, "unfit_size")


def mixed(folder):
    """Have the to_label graph of a model subtract the mean of the whole batch: what a picture is answered depends on its neighbours."""
    path = folder / "to_label.onnx"
    model = onnx.load(path)
    model.graph.node[0].output[0] = "plain"
    mixing = [
        helper.make_node("ReduceMean", ["plain"], ["all"], keepdims=1),
        helper.make_node("Sub", ["plain", "all"], ["float"]),
    ]
    for index, node in enumerate(mixing, 1):
        model.graph.node.insert(index, node)
    onnx.save(model, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["directions"]["to_label"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_model_may_share_its_runs_where_no_picture_shows_in_the_answer_to_another(tmp_path, caplog):
    assert load_model(write_model(tmp_path / "plain"), device="cpu", threads=1, batch=4).batches
    assert not caplog.messages
    assert not load_model(mixed(write_model(tmp_path / "mixed")), device="cpu", threads=1, batch=4).batches
    assert "mixed runs every picture alone" in caplog.text
    for asked in ({"batch": 1}, {"batch": 4, "deterministic": True}):
        assert not load_model(tmp_path / "plain", device="cpu", threads=1, **asked).batches


def test_a_model_of_pictures_too_large_to_share_a_run_is_not_tried_on_shared_runs(tmp_path, monkeypatch):
    resize, sizes, infer = {"rule": "exact", "height": 1024, "width": 1024, "filter": "bicubic"}, [], ExportedModel.infer

    def noted(self, direction, feed, **named):
        sizes.append(len(next(iter(feed.values()))))
        return infer(self, direction, feed, **named)

    monkeypatch.setattr(ExportedModel, "infer", noted)
    for height, most in ((1024, 1), (256, 4)):
        sizes.clear()
        folder = write_model(tmp_path / f"of-{height}", resize={**resize, "height": height}, directions=("to_label",))
        assert load_model(folder, device="cpu", threads=1, batch=16).batches is (most > 1)
        assert max(sizes) == most


def test_deterministic_is_said_to_onnxruntime(tmp_path, monkeypatch):
    said, session_of = [], onnxruntime.InferenceSession

    def noted(graph, options, **named):
        said.append((options.use_deterministic_compute, options.get_session_config_entry("session.intra_op.allow_spinning")))
        return session_of(graph, options, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    folder = write_model(tmp_path / "tiny", directions=("to_label",))
    for deterministic in (False, True):
        load_model(folder, device="cpu", threads=1, deterministic=deterministic)
    assert said == [(False, "0"), (True, "0")]


@pytest.mark.parametrize("where", ["secret.bin", "{folder}/secret.bin", "../secret.bin"])
def test_a_graph_that_reaches_for_data_outside_of_its_file_is_not_loaded(tmp_path, monkeypatch, where):
    folder = write_model(tmp_path / "tiny", directions=("to_label",))
    monkeypatch.chdir(folder)
    graph = onnx.load(folder / "to_label.onnx")
    for beside in (folder, tmp_path):
        (beside / "secret.bin").write_bytes(np.float32(85).tobytes())
    (held,) = (tensor for tensor in graph.graph.initializer if tensor.name == "low")
    held.ClearField("raw_data")
    held.ClearField("float_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": where.format(folder=folder), "offset": "0", "length": "4"}.items():
        held.external_data.add(key=key, value=value)
    (folder / "to_label.onnx").write_bytes(graph.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["directions"]["to_label"]["sha256"] = hashlib.sha256((folder / "to_label.onnx").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder, device="cpu", threads=1)


def test_a_model_that_takes_one_picture_at_a_time_is_served_all_the_same(tmp_path, caplog):
    folder = write_model(tmp_path / "single", directions=("to_label",))
    graph = onnx.load(folder / "to_label.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, folder / "to_label.onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["directions"]["to_label"]["sha256"] = hashlib.sha256((folder / "to_label.onnx").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    model = load_model(folder, device="cpu", threads=1, batch=4)
    assert not model.batches
    assert "single runs every picture alone: it fails on 4 at once" in caplog.text
    assert np.array_equal(model.to_label(ramp(8, 8))[0], brightness_ids(ramp(8, 8)))


def test_each_picture_of_a_run_has_the_noise_of_its_own_seed(tmp_path):
    model = load_model(write_model(tmp_path / "tiny"), device="cpu", threads=1)
    labels = np.stack([brightness_ids(ramp(12, 8)), brightness_ids(noise(12, 8))])
    together = model.run_batch("to_photo", labels, seeds=[5, 9])
    for index, seed in enumerate((5, 9)):
        assert np.array_equal(together["photo"][index], model.run_batch("to_photo", labels[index : index + 1], seeds=[seed])["photo"][0])
    assert not np.array_equal(*(model.run_batch("to_photo", labels[:1], seeds=[seed])["photo"] for seed in (5, 9)))


def test_a_run_whose_brake_is_pulled_ends_before_its_graph_does(tmp_path):
    """Ten convolutions in a row: a brake that works ends the run after the one that it is in."""
    model = load_model(write_slow_model(tmp_path / "slow", pytest.MonkeyPatch(), times=10), device="cpu", threads=1)
    photo, brake = np.zeros((1, 120, 120, 3), np.uint8), Brake()
    began = time.perf_counter()
    model.run_batch("to_label", photo, seeds=[0])
    whole = time.perf_counter() - began
    threading.Timer(whole / 10, brake.pull).start()
    with pytest.raises(RUN_FAILURES, match="terminate"):
        model.run_batch("to_label", photo, seeds=[0], brake=brake)
