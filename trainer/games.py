"""The adversarial games by name: what the discriminator and the generator minimise, each a pure function with its equation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import relu

from trainer import losses

GameName = Literal["vanilla", "lsgan", "hinge", "relativistic", "relativistic-average"]


@dataclass(frozen=True)
class Game:
    """Two losses over logits D (also written C, for critic), Float[B,1,h,w] of equal shape for real and fake; each is a mean."""

    critic: Callable[[Tensor, Tensor], Tensor]
    """(real, fake) -> what the discriminator minimises."""
    generator: Callable[[Tensor, Tensor | None], Tensor]
    """(fake, real) -> what the generator minimises; `real` is None where the game does not compare."""
    compares: bool
    """Whether the generator's loss asks for the logits of real samples too."""

    @torch.no_grad()
    def known(self, critic: Callable[[Tensor], Tensor], real: Tensor) -> Tensor | None:
        """The logits of real samples, without a gradient: the generator cannot move them. None where the game does not compare."""
        return critic(real) if self.compares else None


def vanilla_critic(real: Tensor, fake: Tensor) -> Tensor:
    """1/2 [-log sigmoid(D(real)) - log(1 - sigmoid(D(fake)))] (Isola et al., Eq. 1, halved as in section 3.3)."""
    return 0.5 * (losses.cross_entropy_logits(real, real=True) + losses.cross_entropy_logits(fake, real=False))


def vanilla_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """-log sigmoid(D(fake)), the form that does not saturate (Isola et al., section 3.3)."""
    return losses.cross_entropy_logits(fake, real=True)


def least_squares_critic(real: Tensor, fake: Tensor) -> Tensor:
    """1/2 [(D(real) - 1)^2 + D(fake)^2] (Mao et al. 2017, Eq. 9 with a = 0, b = 1; Zhu et al., section 4)."""
    return 0.5 * (losses.least_squares(real, real=True) + losses.least_squares(fake, real=False))


def least_squares_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """(D(fake) - 1)^2 (Zhu et al., section 4)."""
    return losses.least_squares(fake, real=True)


def hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - D(real)) + max(0, 1 + D(fake)) (Lim and Ye 2017; Park et al. 2019, SPADE)."""
    return relu(1 - real.float()).mean() + relu(1 + fake.float()).mean()


def hinge_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """-D(fake) (Lim and Ye 2017; Park et al. 2019, SPADE)."""
    return -fake.float().mean()


def relativistic_critic(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(C(real) - C(fake)), sample against sample and patch against patch (Shukla et al., Eq. 1); not halved."""
    return losses.relativistic(real, fake)


def relativistic_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """-log sigmoid(C(fake) - C(real)) (Shukla et al., Eq. 2)."""
    return losses.relativistic(fake, _known(real))


def relativistic_average_critic(real: Tensor, fake: Tensor) -> Tensor:
    """1/2 [mean (C(real) - mean C(fake) - 1)^2 + mean (C(fake) - mean C(real) + 1)^2] (Jolicoeur-Martineau 2018, appendix, RaLSGAN).

    The means run over batch and map. The 1/2 is that of the hybrid paper's released code, which has this game as its alternative.
    """
    real, fake = real.float(), fake.float()
    return 0.5 * ((real - fake.mean() - 1).square().mean() + (fake - real.mean() + 1).square().mean())


def relativistic_average_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """1/2 [mean (C(fake) - mean C(real) - 1)^2 + mean (C(real) - mean C(fake) + 1)^2]: the discriminator's with real and fake exchanged."""
    return relativistic_average_critic(fake, _known(real))


GAMES: dict[GameName, Game] = {
    "vanilla": Game(vanilla_critic, vanilla_generator, compares=False),
    "lsgan": Game(least_squares_critic, least_squares_generator, compares=False),
    "hinge": Game(hinge_critic, hinge_generator, compares=False),
    "relativistic": Game(relativistic_critic, relativistic_generator, compares=True),
    "relativistic-average": Game(relativistic_average_critic, relativistic_average_generator, compares=True),
}
"""Every game that a method's `game` can name."""


def _known(real: Tensor | None) -> Tensor:
    if real is None:
        raise ValueError("a relativistic generator is compared with real samples: give their logits")
    return real
