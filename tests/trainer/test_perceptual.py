"""The perceptual loss in both layouts against plain Sequentials, and what it says where it has no weights."""

import urllib.error
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainer.errors import UserError
from trainer.networks.perceptual import PerceptualLoss

VGG_19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
"""The channels of its convolutions up to relu5_1 (configuration E of its paper); 0 is a pooling."""


def torchvision_like() -> nn.Sequential:
    """VGG-19's convolutional part up to relu5_1."""
    return nn.Sequential(*vgg_layers(VGG_19, lambda before, after: [nn.Conv2d(before, after, 3, padding=1)]))


def partial() -> nn.Sequential:
    """The one with normalised activations, up to relu3_1, as style transfer lists it."""
    reflected = vgg_layers(VGG_19[:7], lambda before, after: [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3)])
    return nn.Sequential(nn.Conv2d(3, 3, 1), *reflected)


def vgg_layers(plan: Sequence[int], convolution: Callable[[int, int], list[nn.Module]]) -> Iterator[nn.Module]:
    before = 3
    for after in plan:
        yield from [*convolution(before, after), nn.ReLU()] if after else [nn.MaxPool2d(2)]
        before = after or before


def saved(network: nn.Module, path: Path, *, prefix: str = "") -> Path:
    torch.save({f"{prefix}{name}": value for name, value in network.state_dict().items()}, path)
    return path


def by_hand(network: nn.Sequential, made: Tensor, real: Tensor, terms: dict[int, float]) -> float:
    """sum weight mean |difference| of the outputs of the layers with these numbers."""
    total = 0.0
    with torch.no_grad():
        for number, layer in enumerate(network):
            made, real = layer(made), layer(real)
            if number in terms:
                assert isinstance(layer, nn.ReLU)
                total += terms[number] * float((made - real).abs().mean())
    return total


def pictures() -> tuple[Tensor, Tensor]:
    made, real = torch.rand(2, 2, 3, 32, 48) * 2 - 1
    return made, real


def test_torchvision_s_layout_compares_relu1_1_to_relu5_1_of_the_photos_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision_like()
    for parameter in network.parameters():  # so that the deep layers still tell the photos apart
        nn.init.normal_(parameter, std=0.05)
    made, real = pictures()
    loss = PerceptualLoss(saved(network, tmp_path / "vgg19.pth", prefix="features."))
    expected = by_hand(network, made, real, {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0})
    assert loss(made, real).item() == pytest.approx(expected, rel=1e-4)


def test_the_partial_layout_takes_photos_in_zero_to_one_and_scales_its_three_weights_to_the_sum_of_five(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    network = partial()
    made, real = pictures()
    loss = PerceptualLoss(saved(network, tmp_path / "vgg.pth"))
    scale = (1 / 32 + 1 / 16 + 1 / 8 + 1 / 4 + 1) / (1 / 32 + 1 / 16 + 1 / 8)
    expected = scale * by_hand(network, (made + 1) / 2, (real + 1) / 2, {3: 1 / 32, 10: 1 / 16, 17: 1 / 8})
    assert loss(made, real).item() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_goes_to_the_generated_photo_alone_and_the_weights_are_no_parameters(tmp_path: Path) -> None:
    loss = PerceptualLoss(saved(partial(), tmp_path / "vgg.pth"))
    made, real = (picture.requires_grad_() for picture in pictures())
    with torch.autocast("cpu", torch.bfloat16):
        answer = loss(made, real)
    assert answer.dtype == torch.float32
    answer.backward()
    assert made.grad is not None
    assert made.grad.any()
    assert real.grad is None
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


def test_without_weights_it_can_be_built_but_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    loss = PerceptualLoss(None)
    with pytest.raises(UserError, match=r"cannot be downloaded .*no route.*set its weight to 0"):
        loss.load()


def test_a_file_that_is_no_vgg_is_refused_with_its_name_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: there is no such file"):
        PerceptualLoss(tmp_path / "nowhere.pth").load()
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(UserError, match=r"text\.pth cannot be read as a file of weights"):
        PerceptualLoss(tmp_path / "text.pth").load()
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list\.pth holds a list, but .* is expected"):
        PerceptualLoss(tmp_path / "list.pth").load()
    other = saved(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 32, 3)), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth is no VGG-19 .*size mismatch for 2\.weight.*torchvision's layout"):
        PerceptualLoss(other).load()
