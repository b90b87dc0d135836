"""Encoders of timm: their pretrained weights, their features, and what training leaves alone."""

from pathlib import Path

import pytest
import timm
import torch

from tests.trainer.factories import encoder_file
from trainer.errors import UserError
from trainer.networks.encoders import DEFAULT, Encoder, load_encoder
from trainer.networks.normalisation import synchronise_batch_norm

SMALL = "test_efficientnet"


def test_the_default_encoder_s_weights_come_with_its_package_and_give_timm_s_features() -> None:
    encoder = load_encoder(DEFAULT)
    whole = timm.create_model(DEFAULT, pretrained=False).eval()
    whole.load_state_dict(encoder.network.state_dict(), strict=False)
    photo = torch.rand(1, 3, 64, 96) * 2 - 1
    config = timm.get_pretrained_cfg(DEFAULT)
    assert config is not None
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (config.mean, config.std))
    with torch.no_grad():
        _, expected = whole.forward_intermediates(((photo + 1) / 2 - mean) / std)
        found = encoder(photo)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_frozen_encoder_passes_gradients_to_the_photo_alone() -> None:
    encoder = load_encoder(SMALL, Path(encoder_file()))
    photo = torch.rand(1, 3, 64, 64, requires_grad=True)
    encoder(photo)[-1].sum().backward()
    assert photo.grad is not None
    assert photo.grad.any()
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_batch_norm_statistics_stay_in_training_and_samples_do_not_depend_on_their_batch() -> None:
    encoder = Encoder(SMALL)
    encoder.load_pretrained(Path(encoder_file()))
    encoder.train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    photos = torch.rand(3, 3, 64, 64)
    together, alone = encoder(photos)[-1][:1], encoder(photos[:1])[-1]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())


def test_weights_of_another_model_are_refused_with_the_first_tensor_that_is_missing(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        UserError, match=r"other\.pth is not a state dict of timm's test_efficientnet: 'conv_stem\.weight' is"
    ):
        load_encoder(SMALL, tmp_path / "other.pth")


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"timm has no model 'efficientnet_lite9'"):
        Encoder("efficientnet_lite9")


def test_pretrained_encoders_keep_their_norms_where_others_are_synchronised() -> None:
    network = torch.nn.ModuleDict({"segmenter": torch.nn.Sequential(Encoder(SMALL)), "other": torch.nn.BatchNorm2d(3)})
    synchronise_batch_norm(network)
    assert isinstance(network["other"], torch.nn.SyncBatchNorm)
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in network["segmenter"].modules())
