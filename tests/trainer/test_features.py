"""Features: each photo read once, kept through an interruption, the same in any company; and a sentence for a file that is no extractor."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.extractors import Counting, write_extractor
from tests.trainer.folders import make_folders, open_folders, photo_of, write
from trainer.data import features as module
from trainer.data.catalogue import open_dataset
from trainer.data.features import open_features
from trainer.errors import UserError


def photos_alone(root: Path, count: int):
    make_folders(root, count=0)
    for number in range(count):
        write(root / "photos" / f"street{number:03d}.png", photo_of(number))
    dataset = open_folders(root)
    return dataset, dataset.samples("train")


def prepared(photo: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).resize((224, 224), Image.Resampling.BICUBIC))


def test_an_onnx_extractor_sees_the_whole_photo_at_224_in_minus_one_to_one(tmp_path):
    dataset, samples = photos_alone(tmp_path, 3)
    source = open_features(write_extractor(tmp_path / "patches.onnx"))
    rows = source.features(dataset, samples, cache=None, progress=False)
    for row, sample in zip(rows, samples, strict=True):
        image = prepared(dataset.read_photo(sample)).astype(np.float64) / 127.5 - 1
        expected = image.reshape(4, 56, 4, 56, 3).mean(axis=(1, 3)).transpose(2, 0, 1).ravel()
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert source.name.startswith("patches-")
    assert rows.dtype == np.float32


def test_pictures_at_hand_have_the_features_of_the_files(tmp_path):
    dataset, samples = photos_alone(tmp_path, 20)
    source = open_features(write_extractor(tmp_path / "patches.onnx"))
    pictures = np.stack([dataset.read_photo(sample) for sample in samples])
    assert np.array_equal(source.of_pictures(pictures), source.features(dataset, samples, cache=None, progress=False))
    assert source.of_pictures(pictures[:0]).shape == (0, 48)


@pytest.mark.slow
def test_a_resnet50_state_dict_gives_its_penultimate_values_with_and_without_the_last_layer(tmp_path, monkeypatch):
    from torchvision.models import resnet50

    monkeypatch.setattr(module, "BATCH", 1)
    torch.manual_seed(0)
    network = resnet50().eval()
    state = network.state_dict()
    torch.save(state, tmp_path / "whole.pth")
    torch.save({name: value for name, value in state.items() if not name.startswith("fc.")}, tmp_path / "headless.pt")
    photo = photo_of(1, height=50, width=70)
    seen: list[torch.Tensor] = []
    network.avgpool.register_forward_hook(lambda module, given, made: seen.append(made.flatten(1)))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        network(((torch.from_numpy(prepared(photo).copy()).float() / 255 - mean) / deviation).permute(2, 0, 1)[None])
    rows = [open_features(tmp_path / name).of_pictures(photo[None]) for name in ("whole.pth", "headless.pt")]
    assert rows[0].shape == (1, 2048)
    np.testing.assert_allclose(rows[0][0], seen[0][0].numpy(), rtol=1e-3, atol=1e-4)
    assert np.array_equal(*rows)


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path):
    dataset, samples = photos_alone(tmp_path / "set", 50)
    whole = Counting().features(dataset, samples, cache=None, progress=False)
    stopped = Counting(stop_after=44)
    with pytest.raises(KeyboardInterrupt):
        stopped.features(dataset, samples, cache=tmp_path / "cache", progress=False)
    assert stopped.calls == 40
    again = Counting()
    assert np.array_equal(again.features(dataset, samples, cache=tmp_path / "cache", progress=False), whole)
    assert again.calls == 10
    third = Counting()
    assert np.array_equal(third.features(dataset, samples[::-1], cache=tmp_path / "cache", progress=False), whole[::-1])
    assert third.calls == 0


def test_a_record_that_was_cut_off_or_damaged_is_computed_anew(tmp_path):
    dataset, samples = photos_alone(tmp_path / "set", 10)
    whole = Counting().features(dataset, samples, cache=tmp_path / "cache", progress=False)
    (file,) = (tmp_path / "cache").iterdir()
    content = bytearray(file.read_bytes())
    record = 16 + 4 * 48 + 4
    content[-3 * record + 40] ^= 1  # a bit of the third record from the end
    file.write_bytes(content[:-50])  # and the last one half-written
    mended = Counting()
    assert np.array_equal(mended.features(dataset, samples, cache=tmp_path / "cache", progress=False), whole)
    assert mended.calls == 2
    final = Counting()
    assert np.array_equal(final.features(dataset, samples, cache=tmp_path / "cache", progress=False), whole)
    assert final.calls == 0


@pytest.mark.parametrize("kept", [0, 5])
def test_a_cache_killed_before_its_first_line_was_written_begins_anew(tmp_path, kept):
    dataset, samples = photos_alone(tmp_path / "set", 3)
    whole = Counting().features(dataset, samples, cache=tmp_path / "cache", progress=False)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:kept])
    assert np.array_equal(Counting().features(dataset, samples, cache=tmp_path / "cache", progress=False), whole)


def test_a_file_that_is_no_cache_of_this_extractor_is_left_alone(tmp_path):
    dataset, samples = photos_alone(tmp_path / "set", 1)
    (tmp_path / "cache").mkdir()
    file = tmp_path / "cache" / "counting-00000000.features"
    file.write_text("something of mine\n" * 50)
    with pytest.raises(UserError, match=r"counting-00000000\.features holds no features of this extractor: remove it, or .* --cache"):
        Counting().features(dataset, samples, cache=tmp_path / "cache", progress=False)
    assert file.read_text().startswith("something of mine")


def test_a_photo_that_changed_is_read_again_and_another_extractor_has_a_file_of_its_own(tmp_path):
    dataset, samples = photos_alone(tmp_path / "set", 4)
    before = Counting().features(dataset, samples, cache=tmp_path / "cache", progress=False)
    path = dataset.file(samples[2], "photo")
    write(path, photo_of(99))
    os.utime(path, ns=(1, 1))
    changed = Counting()
    after = changed.features(dataset, samples, cache=tmp_path / "cache", progress=False)
    assert changed.calls == 1
    assert [bool((one == other).all()) for one, other in zip(before, after, strict=True)] == [True, True, False, True]
    other = Counting(name="other-00000000")
    other.features(dataset, samples, cache=tmp_path / "cache", progress=False)
    assert other.calls == 4


def test_a_second_process_waits_for_the_first_and_computes_nothing_twice(tmp_path):
    dataset, samples = photos_alone(tmp_path / "set", 30)
    sources = [Counting(), Counting()]
    threads = [
        threading.Thread(target=source.features, args=(dataset, samples), kwargs={"cache": tmp_path / "cache", "progress": False})
        for source in sources
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(source.calls for source in sources) == [0, 30]


def test_drawn_scenes_have_features_too_and_keep_them(tmp_path):
    dataset = open_dataset("scenes", None)
    samples = dataset.samples("train")[:3]
    first, again = Counting(), Counting()
    rows = first.features(dataset, samples, cache=tmp_path, progress=False)
    assert np.array_equal(again.features(dataset, samples, cache=tmp_path, progress=False), rows)
    assert (first.calls, again.calls) == (3, 0)


def test_photos_are_decoded_only_a_few_batches_ahead(tmp_path, monkeypatch):
    dataset, samples = photos_alone(tmp_path, 200)
    decoded = 0
    lock = threading.Lock()
    prepare = module._prepared

    def counted(photo: np.ndarray) -> np.ndarray:
        nonlocal decoded
        with lock:
            decoded += 1
        return prepare(photo)

    monkeypatch.setattr(module, "_prepared", counted)
    source = Counting()
    run = source._run
    ahead = []

    def watched(photos: np.ndarray) -> np.ndarray:
        ahead.append(decoded - source.calls)
        return run(photos)

    monkeypatch.setattr(source, "_run", watched)
    source.features(dataset, samples, cache=None, progress=False)
    assert source.calls == 200
    assert max(ahead) <= 5 * module.BATCH + 1
    assert source.largest == module.BATCH


def test_every_photo_that_cannot_be_read_is_named_when_the_others_are_kept(tmp_path):
    dataset, samples = photos_alone(tmp_path / "set", 20)
    for number in (3, 11):
        (tmp_path / "set" / "photos" / f"street{number:03d}.png").write_bytes(b"not a picture")
    with pytest.raises(
        UserError, match=r"2 of the 20 photos of folders in .* cannot be read: .*street003\.png.*; .*street011\.png.*--skip-broken"
    ):
        Counting().features(dataset, samples, cache=tmp_path / "cache", progress=False)
    again = Counting()
    rows, broken = again.readable(dataset, samples, cache=tmp_path / "cache", progress=False)
    assert again.calls == 0
    assert [sample.name for sample in broken] == ["street003", "street011"]
    assert rows.shape == (18, 48)
    readable = [sample for sample in samples if sample not in broken]
    assert np.array_equal(rows, Counting().features(dataset, readable, cache=None, progress=False))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"names": ("input", "features")}, r"input input tensor\(float\).*a feature extractor has one input `image`"),
        ({"names": ("image", "logits")}, r"output logits tensor\(float\)"),
        ({"image": ("B", 3, 112, 112)}, r"input image tensor\(float\)\['B', 3, 112, 112\]"),
        ({"image": (1, 3, 224, 224)}, r"input image tensor\(float\)\[1, 3, 224, 224\].*with B free"),
        ({"flat": False}, r"output features tensor\(float\)\['B', 3, 4, 4\]"),
        ({"nan": True}, r"values that are not finite"),
    ],
)
def test_an_onnx_file_that_breaks_the_contract_is_refused_with_what_it_has(tmp_path, options, found):
    with pytest.raises(UserError, match=found):
        open_features(write_extractor(tmp_path / "wrong.onnx", **options))


def test_a_file_that_is_no_extractor_at_all_is_refused(tmp_path):
    for name, complaint in (
        ("nothing.onnx", "there is no such file"),
        (
            "text.onnx",
            r"cannot be read as an ONNX model \(.*\): give an extractor with one input `image` .*, or a state dict",
        ),
        ("text.pth", "cannot be read as a file of weights"),
        ("text.h5", r"ends in \.h5: give a \.onnx extractor, or a state dict of torchvision's resnet50"),
    ):
        if name.startswith("text"):
            (tmp_path / name).write_text("no weights")
        with pytest.raises(UserError, match=rf"--features .*{name}.*{complaint}|--features .*{name}: {complaint}"):
            open_features(tmp_path / name)


def test_weights_of_another_architecture_are_refused_with_the_first_difference(tmp_path):
    from torchvision.models import resnet18, resnet101

    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    torch.save({name: torch.zeros(()).expand(value.shape) for name, value in resnet101().state_dict().items()}, tmp_path / "resnet101.pth")
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match=r"resnet18\.pth is not the state dict of torchvision's resnet50: layer1\.0\..* more differ"):
        open_features(tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match=r"resnet101\.pth is not .* resnet50: layer3\.6\.\S+ is no part of it"):
        open_features(tmp_path / "resnet101.pth")
    with pytest.raises(UserError, match=r"checkpoint\.pth holds a dict with 'state_dict', 'epoch', but a state dict .* is expected"):
        open_features(tmp_path / "checkpoint.pth")


def test_where_torchvision_cannot_fetch_its_weights_the_remedy_is_named(monkeypatch):
    from urllib.error import URLError

    from torchvision.models import ResNet50_Weights

    def offline(self: object, *arguments: object, **options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", offline)
    with pytest.raises(UserError, match=r"could not fetch its ResNet-50 weights .*resnet50-\w+\.pth.*--features PATH.*--rule random"):
        open_features(None)
