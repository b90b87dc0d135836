"""Every method is exported in every direction it offers, and its graph answers as torch does, at two sizes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from tests.trainer.factories import CLASSES, tiny_batch, tiny_method, tiny_size
from trainer import parity
from trainer.graphs import Direction, draw_graph
from trainer.methods import METHODS
from trainer.methods.base import Method
from trainer.networks.spectral import folded

QUICK = {("spade", "to_photo"), ("semipaired", "to_label")}
"""Those that no quick test beside these exports, and that do not take the exporter half a minute as the wavelet generator does."""


def exportable(name: str, direction: Direction) -> Method:
    """The method with weights large enough for varied answers, batch statistics that belong to them, and no spectral norms."""
    method = tiny_method(name, **({"direction": direction} if name == "pix2pix" else {}))
    for module in method.modules():
        if isinstance(module, nn.Conv2d) and not is_parametrized(module):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    method.refresh([tiny_batch(length=2, size=tiny_size(name))])
    return folded(method)


CASES: list[tuple[str, Direction]] = [
    (name, direction)
    for name, method in METHODS.items()
    for direction in ("to_label", "to_photo")
    if name == "pix2pix" or direction in method.directions  # pix2pix offers whichever it is configured for
]


@pytest.mark.timeout(600)  # the exporter, on a processor that has other things to do
@pytest.mark.parametrize(("name", "direction"), [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES])
def test_a_method_s_graph_agrees_with_torch_at_two_sizes_and_holds_no_spectral_norm(name: str, direction: Direction) -> None:
    method, size = exportable(name, direction), tiny_size(name)
    graph = draw_graph(method, direction, name=name, size=size, half=False)
    rows = parity.prove(graph, method, size=size, material=parity.drawn(CLASSES))
    assert [(row["height"], row["width"]) for row in rows] == [size, parity.other_size(size, method.multiple_of)]
    assert not any("parametrizations" in weights.name for weights in graph.model.graph.initializer)
    assert graph.noise_shape == (method.noise_shape if direction == "to_photo" else None)

    photos, labels = parity.drawn(CLASSES)(2, 64, 64)
    noise = {} if graph.noise_shape is None else {"noise": torch.randn(2, *graph.noise_shape).numpy()}
    answers = parity.run(graph.model, {graph.input.name: photos if direction == "to_label" else labels} | noise)
    assert len(np.unique(answers[graph.outputs[0].name])) > 1, "answers that are all alike would agree by chance"
