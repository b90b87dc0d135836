"""The first weights of the networks that make photos from label maps, and of those that judge them: torch's own, or the released codes'."""

from typing import Literal, get_args

from torch import nn

from trainer.networks.spectral import settle, xavier

FirstWeights = Literal["torch", "xavier"]
"""torch: what carries spectral norm begins as torch's convolutions do. xavier: as in the released codes, it begins small like the rest."""


def redraw(choice: FirstWeights, *networks: nn.Module) -> None:
    """Give fresh networks the first weights that were asked for: "torch" leaves them as they were built and draws nothing.

    "xavier" draws the weight of every convolution and linear layer anew, Xavier-normal with gain 0.02, under spectral norm too, and makes
    its bias 0, as `init_networks` of OASIS and USIS and `init_weights` of SPADE do. Norm layers have no affine here, so nothing of theirs
    is drawn. The draws are torch's global ones, in the order of the modules. Raises ValueError on any other choice.

    # Unlike the released codes: the vectors of spectral norm are brought up to date with the new weight here; there they begin at random,
    # and the first few passes in training do it.
    """
    if choice not in get_args(FirstWeights):
        raise ValueError(f"first_weights {choice!r}: give {' or '.join(get_args(FirstWeights))}")
    if choice == "torch":
        return
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                xavier(module)
        settle(network, iterations=15)  # as many as torch's spectral norm begins with
