"""The encoder with ImageNet weights: the same numbers as the files' own code, and a sentence for every file that does not fit."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torchvision.models import mobilenet_v2

from trainer.errors import UserError
from trainer.networks.pretrained import TAPS, MobileNetV2, PretrainedSegmenter, read_weights

REAL = Path(os.environ.get("FEWPAIR_DATA", Path(__file__).parents[2] / "../shared/data")) / "weights" / "mobilenet_v2_features.onnx"


def torchvision_model() -> Any:
    """torchvision's network with every norm's statistics and affine far from their first values."""
    torch.manual_seed(1)
    model = mobilenet_v2(weights=None).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean, std=0.2)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return model


def photos(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_the_encoder_gives_torchvisions_features_from_torchvisions_state_dict(tmp_path: Path) -> None:
    model, photo = torchvision_model(), photos()
    torch.save(model.state_dict(), tmp_path / "mobilenet.pth")
    encoder = MobileNetV2()
    encoder.load(read_weights(tmp_path / "mobilenet.pth"))

    mean, spread = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    features, expected = ((photo + 1) / 2 - mean) / spread, []
    with torch.no_grad():
        for index, layer in enumerate(model.features):
            features = layer(features)
            if index in TAPS:
                expected.append(features)
        for mine, theirs in zip(encoder(photo), expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_the_encoder_gives_the_onnx_files_features() -> None:
    if not REAL.exists():
        pytest.skip(f"{REAL} is absent (set FEWPAIR_DATA to the folder that holds weights/): the project does not ship it")
    onnxruntime = pytest.importorskip("onnxruntime")
    encoder, weights = MobileNetV2(), read_weights(REAL)
    encoder.load(weights)
    photo = photos(224, 224)
    expected = onnxruntime.InferenceSession(REAL, providers=["CPUExecutionProvider"]).run(None, {"image": photo.numpy()})[0]
    with torch.no_grad():
        last = torch.nn.functional.conv2d(encoder(photo)[-1], weights.kernels[-1], weights.biases[-1])
        found = torch.nn.functional.relu6(last).mean((2, 3))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_a_checkpoint_brings_the_weights_padding_and_range_along(tmp_path: Path) -> None:
    torch.save(torchvision_model().state_dict(), tmp_path / "mobilenet.pth")
    for path, padding in ((tmp_path / "mobilenet.pth", "around"), (folded_onnx(tmp_path / "folded.onnx"), "after")):
        first, second = PretrainedSegmenter(3, width=4), PretrainedSegmenter(3, width=4)
        first.encoder.load(read_weights(path))
        assert first.encoder.get_extra_state() == {"padding": padding}
        second.load_state_dict(first.state_dict())
        with torch.no_grad():
            assert torch.equal(second(photos()), first(photos()))


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 160)])
def test_the_segmenter_answers_at_the_photos_size(size: tuple[int, int]) -> None:
    segmenter = PretrainedSegmenter(5, width=8)
    with torch.no_grad():
        assert [tuple(each.shape[1:]) for each in segmenter.encoder(photos(*size))] == [
            (channels, size[0] // stride, size[1] // stride) for channels, stride in zip(TAPS.values(), (2, 4, 8, 16, 32), strict=True)
        ]
        assert segmenter(photos(*size)).shape == (2, 5, *size)


def test_the_encoder_has_torchvisions_parameters_with_its_norms_folded() -> None:
    theirs = sum(module.weight.numel() for module in mobilenet_v2(weights=None).features[:-1].modules() if isinstance(module, nn.Conv2d))
    kernels = [parameter for parameter in MobileNetV2().parameters() if parameter.ndim == 4]
    assert sum(kernel.numel() for kernel in kernels) == theirs
    assert len(kernels) == 51


def test_weights_that_do_not_fit_are_refused_with_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.pth: there is no such file"):
        read_weights(tmp_path / "nothing.pth")
    for name in ("text.pth", "text.onnx"):
        (tmp_path / name).write_text("not weights")
        with pytest.raises(UserError, match=f"{name} cannot be read as an? "):
            read_weights(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list\.pth holds a list, but .* is expected"):
        read_weights(tmp_path / "list.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth is not a state dict of torchvision's mobilenet_v2: 312 of its 312"):
        read_weights(tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"short\.onnx holds 2 convolutions"):
        MobileNetV2().load(read_weights(folded_onnx(tmp_path / "short.onnx", convolutions=2)))
    with pytest.raises(UserError, match=r"wide\.onnx.*convolution 2 is \(7, 1, 3, 3\), but MobileNetV2's is \(32, 1, 3, 3\)"):
        MobileNetV2().load(read_weights(folded_onnx(tmp_path / "wide.onnx", replaced={1: (7, 1, 3, 3)})))


def test_without_a_network_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: object, **named: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"no route to host.*--config\.encoder-weights"):
        read_weights(None)


def folded_onnx(path: Path, *, convolutions: int = 52, replaced: dict[int, tuple[int, ...]] | None = None) -> Path:
    """An ONNX file with MobileNetV2's convolutions, padded as Keras pads; some of other shapes, or the last ones left out."""
    generator = np.random.default_rng(0)
    shapes = [tuple(module.weight.shape) for module in mobilenet_v2(weights=None).features.modules() if isinstance(module, nn.Conv2d)]
    nodes, values = [], []
    for index, shape in enumerate(shapes[:convolutions]):
        shape = (replaced or {}).get(index, shape)
        kernel, bias = (generator.normal(0, 0.1, size).astype(np.float32) for size in (shape, shape[:1]))
        values += [numpy_helper.from_array(kernel, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        nodes.append(helper.make_node("Conv", ["x", f"w{index}", f"b{index}"], [f"y{index}"], pads=[0, 0, 1, 1]))
    onnx.save(helper.make_model(helper.make_graph(nodes, "folded", [], [], values)), path)
    return path
