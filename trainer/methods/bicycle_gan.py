"""BicycleGAN (Zhu et al. 2017): many photos of one label from pairs alone, by cVAE-GAN and cLR-GAN at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer import losses
from trainer.batch import Batch, Domain, LabelMap, Photo
from trainer.methods.base import ParameterGroup, Update
from trainer.methods.translator import Translator
from trainer.networks.frozen import frozen
from trainer.networks.init import initialise
from trainer.networks.patchgan import Patch, TwoScalePatchGAN, smallest_side
from trainer.networks.residual_encoder import ResidualEncoder
from trainer.networks.unet import UNetGenerator


@dataclass(frozen=True)
class Config:
    """The choices of `bicycle_gan`; the defaults are the paper's."""

    width: int = 64
    """Channels of the first layer of generator, encoder and discriminators."""
    levels: int = 8
    """How often the U-Net halves the picture, whose sides are multiples of 2^levels: 8 for 256x256. The encoder has
    half as many blocks."""
    noise: int = 8
    """Values of a photo's code z."""
    patch: Patch = 70
    """Receptive field of the discriminators in pixels."""
    label_as: Literal["colours", "classes"] = "colours"
    """colours: label maps are RGB pictures (the paper). classes: one-hot."""
    reconstruction: float = 10.0
    """lambda, on the L1 distance of a photo from its reconstruction."""
    latent: float = 0.5
    """lambda_latent, on the L1 distance of a drawn code from what the encoder reads in its photo."""
    kl: float = 0.01
    """lambda_KL, on the distance between a photo's code and N(0, 1)."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the running average of generator and encoder (ours)."""


class BicycleGAN(Translator):
    """Two cycles: B -> z -> B' of a pair's photo (cVAE-GAN), and z -> B' -> z' of a drawn code (cLR-GAN).

    min_{G,E} max_D L_GAN^VAE + lambda L_1^VAE + L_GAN + lambda_latent L_1^latent + lambda_KL L_KL (Zhu et al., Eq. 9),
    with a least-squares GAN loss and a discriminator for each cycle, which sees photos alone. The encoder does not move
    to make the drawn code readable: it would then agree with the generator on a place to hide it.

    A batch is cut in halves: the first is translated, and the drawn cycle's photos are compared with the real ones of
    the second. Halves of an odd batch share the pair in the middle, so a batch of one takes it for both.
    """

    config_class = Config
    directions = frozenset({"to_photo"})
    chosen_by = ()
    config: Config

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        width, noise = config.width, config.noise
        self.noise_shape, self.style_size = (noise,), size
        self.generator = UNetGenerator(
            self.channels, 3, width=width, levels=config.levels, skips=True, tanh=True, noise=noise
        )
        self.encoder = ResidualEncoder(noise, width=width, blocks=config.levels // 2)
        self.encoded_discriminator, self.drawn_discriminator = (
            TwoScalePatchGAN(width=width, patch=config.patch) for _ in range(2)
        )
        self.multiple_of, self.smallest = self.generator.multiple_of, 2 * smallest_side(config.patch)
        initialise("xavier", self)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {
            "generator": self.adam(self.generator, self.encoder, ema=True),
            "discriminators": self.adam(self.encoded_discriminator, self.drawn_discriminator, ema=False),
        }

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, photo = self.config, batch.paired.photo
        half = (len(photo) + 1) // 2
        label, first, second = self.encode(batch.paired.label[:half]), photo[:half], photo[-half:]
        mean, deviation = self.encoder(first)
        drawn = self.noise(first, i, "drawn")
        fake_encoded = self.generator(label, mean + deviation * self.noise(first, i, "encoded"))
        fake_drawn = self.generator(label, drawn)
        with frozen(self.encoder):
            read, _ = self.encoder(fake_drawn)
        yield Update(
            "generator",
            {
                "adversarial_encoded": _distance(self.encoded_discriminator, fake_encoded, real=True),
                "adversarial_drawn": _distance(self.drawn_discriminator, fake_drawn, real=True),
                "pairs": config.reconstruction * losses.difference(fake_encoded, first),
                "latent": config.latent * losses.difference(read, drawn),
                "kl": config.kl * losses.gaussian_kl(mean, deviation),
            },
        )

        yield Update(
            "discriminators",
            {
                "real_encoded": _distance(self.encoded_discriminator, first, real=True),
                "fake_encoded": _distance(self.encoded_discriminator, fake_encoded.detach(), real=False),
                "real_drawn": _distance(self.drawn_discriminator, second, real=True),
                "fake_drawn": _distance(self.drawn_discriminator, fake_drawn.detach(), real=False),
            },
        )

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        assert noise is not None, "a photo is made from a label and noise"
        return self.generator(self.encode(label), noise)

    def style_of(self, photo: Photo) -> Tensor:
        mean, _ = self.encoder(photo)
        return mean


def _distance(discriminator: TwoScalePatchGAN, photo: Photo, *, real: bool) -> Tensor:
    """The least-squares GAN loss, summed over the scales."""
    return torch.stack([losses.least_squares(logits, real=real) for logits in discriminator(photo)]).sum()
