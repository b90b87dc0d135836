"""Our own: photos from label maps from few pairs, by SPADE on pairs and pseudo-pairs and a projected discriminator."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from trainer import losses
from trainer.augment import diff_augmented
from trainer.batch import IGNORE, Batch, Domain, LabelMap, Pairs, Photo
from trainer.methods.base import ParameterGroup, Update, constant_then_linear
from trainer.methods.from_labels import FromLabels
from trainer.networks.encoders import DEFAULT, Encoder, features_of, load_encoder
from trainer.networks.init import update_spectral_norm
from trainer.networks.patchgan import MultiScalePatchGAN
from trainer.networks.projected import ProjectedDiscriminator, relative_l1
from trainer.networks.pyramid import load_segmenter
from trainer.networks.pyramid_generator import STYLED, PyramidGenerator, StyleEncoder


@dataclass(frozen=True)
class Config:
    """The choices of `painter`."""

    segmenter: str | None = None
    """A run of `mean_teacher` that labels the unpaired photos; None: the pairs alone are reconstructed."""
    confidence: float = 0.5
    """A pseudo-label counts where the segmenter's probability is at least this; elsewhere it is void."""
    widths: tuple[int, int, int, int, int, int] = (192, 160, 96, 64, 32, 24)
    """Channels of the generator's levels, from 1/32 of the size to the whole."""
    hidden: int = 32
    """Channels of the label map's embedding in each SPADE layer."""
    pictures: int = 2
    """The finest levels that have a picture of their own: one more than the times that training doubles its size."""
    noise: int = 16
    """Values of a photo's code, spread over the pixels."""
    kl: float = 0.05
    """Weight of the distance between a photo's code and N(0, 1)."""
    width: int = 48
    """Channels of the conditional discriminators' first layer."""
    encoder: str = DEFAULT
    """The timm model whose frozen features the projected discriminator and the feature loss read."""
    encoder_weights: str | None = None
    """A state dict of that timm model (a file); None: the installed package or timm's hub."""
    projected: float = 1.0
    """Weight of the projected discriminator's loss for the generator."""
    conditional: float = 1.0
    """Weight of the conditional discriminators' loss for the generator."""
    feature_matching: float = 5.0
    """Weight of the L1 distance in the conditional discriminators' features."""
    features: float = 3.0
    """Weight of the relative L1 distance in the encoder's features."""
    colour: float = 10.0
    """Weight of the L1 distance between photos averaged over 8x8 pixels."""
    cycle: float = 1.0
    """Weight of the cross-entropy of what the segmenter, if there is one, reads in generated photos."""
    lr: float = 2e-4
    """Learning rate of the generator's Adam, constant over the first half of the steps, then linear to zero."""
    lr_discriminator: float = 4e-4
    """The same for the discriminators."""
    ema: float = 0.998
    """Decay of the generator's running average."""


class Painter(FromLabels):
    """SPADE's losses and a projected discriminator on pairs and pseudo-pairs.

    Pseudo-pairs are the unpaired photos with the labels that a frozen segmenter gives them. L_G = conditional hinge +
    feature matching (Park et al.) + features + colour + projected hinge (Sauer et al. 2021, Eq. 4). What a
    discriminator sees is changed by DiffAugment (Zhao et al. 2020), a real photo and its reconstruction alike;
    features and colours are compared in the photos as they are.
    """

    config_class = Config
    paths = ("segmenter", "encoder_weights")
    spares_a_half = True
    channels_last = False  # its instance norms are slower so: a step takes a tenth longer
    style_size = StyleEncoder.size
    config: Config
    generator: PyramidGenerator

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        if config.segmenter:
            self.reads = frozenset({"pairs", "unpaired photos"})
        self.generator = PyramidGenerator(
            self.channels, widths=config.widths, hidden=config.hidden, code=config.noise, pictures=config.pictures
        )
        self.multiple_of, self.noise_shape = self.generator.multiple_of, self.generator.noise_shape
        self.smallest = 2 * self.multiple_of  # mirrored borders want more than one pixel at the coarsest level
        self.style = StyleEncoder(config.noise)
        self.conditional = MultiScalePatchGAN(self.channels, width=config.width)
        self.projected = ProjectedDiscriminator(Encoder(config.encoder).channels[1:])
        self._frozen: dict[str, torch.nn.Module] = {}  # outside the state: a checkpoint does not hold them

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        config, betas = self.config, (0.0, 0.99)
        moved = (self.conditional, self.projected.heads)
        return {
            "generator": ParameterGroup(
                (self.generator, self.style), config.lr, betas, constant_then_linear, config.ema
            ),
            "discriminator": ParameterGroup(moved, config.lr_discriminator, betas, constant_then_linear, None),
        }

    def load_pretrained(self) -> None:
        self._load("cpu")

    def style_of(self, photo: Photo) -> Tensor:
        code = self.style(photo)[0]
        return torch.cat([code, code.new_full((len(code), 1), STYLED)], 1)

    def estimate_statistics(self, batches: Iterable[Batch]) -> tuple[nn.Module, ...]:
        """Fit the prior of a photo's code given its label map."""
        rows = []
        with torch.no_grad():
            for batch in batches:
                self._load(batch.paired.photo.device)
                real = self._pairs(batch)
                rows.append((self.generator.shares(self.encode(real.label)), *self.style(real.photo)))
        self.generator.prior.fit(*map(torch.cat, zip(*rows, strict=True)))
        update_spectral_norm(self.generator)
        return (self.generator,)

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config = self.config
        self._load(batch.paired.photo.device)
        real = self._pairs(batch)
        label = real.label
        skip = round(math.log2(self.size[0] / label.shape[-2]))
        condition = self.encode(label)
        noise = self.noise(label, i, "generator")
        mean, deviation = self.style(real.photo)
        fake = self.generator.paint(condition, mean + deviation * noise[:, :-1], noise, skip)

        seen_fake, seen_condition = diff_augmented(fake, condition, self.draws(i, "augment", len(label)))
        seen_real, _ = diff_augmented(real.photo, condition, self.draws(i, "augment", len(label)))
        seen_real, matched = seen_real.detach(), seen_condition.detach()
        with torch.no_grad():
            on_real = self.conditional(seen_real, matched)
            known_features = self._features(seen_real)
            self.projected.calibrate(known_features)
            targets = self._features(real.photo)
        on_fake = self.conditional(seen_fake, matched)
        features = self._features(seen_fake)
        means, known_means = (avg_pool2d(photo, 8) for photo in (fake, real.photo))
        read = {}
        if config.segmenter and config.cycle:
            read["cycle"] = config.cycle * losses.cross_entropy(self._read(fake), label)
        yield Update(
            "generator",
            read
            | {
                "conditional": config.conditional * _mean(losses.negative_mean(scale[-1]) for scale in on_fake),
                "projected": config.projected * _mean(map(losses.negative_mean, self.projected(features))),
                "feature_matching": config.feature_matching * losses.feature_matching_l1(on_real, on_fake),
                "features": config.features * relative_l1(targets, self._features(fake)),
                "colour": config.colour * (means - known_means).abs().mean(),
                "kl": config.kl * losses.gaussian_kl(mean, deviation),
            },
        )

        seen_fake = seen_fake.detach()
        features = [each.detach() for each in features]
        on_real, on_fake = self.conditional(seen_real, matched), self.conditional(seen_fake, matched)
        yield Update(
            "discriminator",
            {
                "real": _mean(losses.hinge(scale[-1], real=True) for scale in on_real),
                "fake": _mean(losses.hinge(scale[-1], real=False) for scale in on_fake),
                "projected_real": _mean(losses.hinge(logits, real=True) for logits in self.projected(known_features)),
                "projected_fake": _mean(losses.hinge(logits, real=False) for logits in self.projected(features)),
            },
        )

    def _pairs(self, batch: Batch) -> Pairs:
        """The pairs, and the unpaired photos with their pseudo-labels."""
        pairs = batch.paired
        if not self.config.segmenter:
            return pairs
        photo = batch.unpaired.photo
        return Pairs(torch.cat([pairs.photo, photo]), torch.cat([pairs.label, self._pseudo_label(photo)]))

    @torch.no_grad()
    def _pseudo_label(self, photo: Photo) -> LabelMap:
        """The segmenter's labels of photos at the size of the last stage; void where it is not confident."""
        certainty, label = torch.softmax(self._read(photo), 1).max(1)
        return torch.where(certainty >= self.config.confidence, label, IGNORE)

    def _read(self, photo: Photo) -> Tensor:
        """The segmenter's logits of photos enlarged to the size of the last stage, for their own size, in fp32."""
        factor = 2 ** round(math.log2(self.size[0] / photo.shape[-2]))
        with torch.autocast(photo.device.type, enabled=False):
            photo = photo.float()
            enlarged = photo if factor == 1 else interpolate(photo, scale_factor=factor, mode="bicubic").clamp(-1, 1)
            scores = self._frozen["segmenter"](enlarged).float()
            return scores if factor == 1 else torch.log(avg_pool2d(torch.softmax(scores, 1), factor).clamp(min=1e-6))

    def _features(self, photo: Photo) -> list[Tensor]:
        """The encoder's maps from stride 4 on."""
        encoder = self._frozen["encoder"]
        assert isinstance(encoder, Encoder)
        return features_of(encoder, photo)[1:]

    def _load(self, device: torch.device | str) -> None:
        """Load the frozen networks, if they were not loaded before, and bring them to the device."""
        config = self.config
        if not self._frozen:
            given = None if config.encoder_weights is None else Path(config.encoder_weights)
            # Their first weights are drawn, and a resumed run draws as an unbroken one.
            with torch.random.fork_rng(devices=[]):
                self._frozen["encoder"] = load_encoder(config.encoder, given)
                if config.segmenter:
                    self._frozen["segmenter"] = load_segmenter(Path(config.segmenter), classes=self.classes)
        for network in self._frozen.values():
            network.to(device)


def _mean(values: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
