"""Every method's graph, in every direction, agrees with torch at three sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from tests.trainer.factories import CLASSES, tiny_batch, tiny_method, tiny_size
from trainer.export import parity
from trainer.export.graphs import Direction, draw_graph
from trainer.methods import METHODS
from trainer.methods.base import Method
from trainer.methods.pix2pixhd import Pix2PixHD
from trainer.networks.init import fuse_spectral_norm

QUICK = {("spade", "to_photo"), ("semipaired", "to_label")}
"""Those that no quick test beside these exports, and that do not take the exporter half a minute as the wavelet
generator does.
"""


SAME: dict[tuple[str, Direction], str] = {
    ("pix2pix", "to_label"): "hybrid",
    ("pix2pix", "to_photo"): "hybrid",
    ("cyclegan", "to_label"): "hybrid",
    ("cyclegan", "to_photo"): "hybrid",
    ("tripathy", "to_label"): "hybrid",
    ("tripathy", "to_photo"): "hybrid",
    ("tcr", "to_photo"): "oasis",
    ("usis", "to_photo"): "semipaired",
}
"""Directions whose graph another method has too: a second proof would take the exporter up to half a minute and could
find nothing new.
"""

EXPORTED = ("painter", "bicycle_gan")
"""Methods that tests/trainer/test_export.py exports with their style, which proves their graphs too."""

CASES: list[tuple[str, Direction]] = [
    (name, direction)
    for name, method in METHODS.items()
    for direction in ("to_label", "to_photo")
    if name not in EXPORTED
    and (name == "pix2pix" or direction in method.directions)  # pix2pix offers whichever it is configured for
]


def configured(name: str, direction: Direction) -> Method:
    changes: dict[str, dict[str, str]] = {
        "pix2pix": {"direction": direction},
        "oasis": {"norm": "instance"},
        "tcr": {"norm": "instance"},
    }
    method = tiny_method(name, **changes.get(name, {}))  # SPADE's other norm is that of spade, semipaired and usis
    if isinstance(method, Pix2PixHD):
        method.enhanced = True  # as in all stages but the first
    return method


def exportable(name: str, direction: Direction) -> Method:
    """The method with weights large enough for varied answers, batch statistics that belong to them, and no spectral
    norms.

    Those of cc_fpse stay as drawn: it multiplies by predicted kernels, and large ones make much of small roundings.
    """
    method = configured(name, direction)
    for module in method.modules():
        if isinstance(module, nn.Conv2d) and not is_parametrized(module) and name != "cc_fpse":
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    method.estimate_statistics([tiny_batch(length=2, size=tiny_size(name))])
    return fuse_spectral_norm(method)


@pytest.mark.timeout(600)  # the exporter, on a processor that has other things to do
@pytest.mark.parametrize(
    ("name", "direction"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES if case not in SAME],
)
def test_a_method_s_graph_agrees_with_torch_at_three_sizes_and_holds_no_spectral_norm(
    name: str, direction: Direction
) -> None:
    method, size = exportable(name, direction), tiny_size(name)
    graph = draw_graph(method, direction, size=size)
    rows = parity.prove(graph, method, size=size)
    assert [(row["height"], row["width"]) for row in rows] == [size, parity.other_size(size, method.multiple_of)]
    assert not any("parametrizations" in weights.name for weights in graph.model.graph.initializer)
    assert graph.noise_shape == (method.noise_shape if direction == "to_photo" else None)

    photos, labels = parity.drawn(CLASSES, 3, (192, 64))  # three at once, and higher than wide
    third = parity.compared(graph, method, photos, labels)
    assert third.batch == 3
    # onnxruntime's instance norm rounds more over a larger picture: 1.2e-4 for the hybrid's photos; torch is 4e-6 from
    # its own doubles
    assert third.raw_max_difference is None or third.raw_max_difference < 1e-3
    assert replace(third, raw_max_difference=None).excess() is None
    noise = {} if graph.noise_shape is None else {"noise": torch.randn(3, *graph.noise_shape).numpy()}
    extra = noise | ({"previous": photos} if graph.previous else {})
    answers = parity.run(graph.model, {graph.input.name: photos if direction == "to_label" else labels} | extra)
    assert len(np.unique(answers[graph.outputs[0].name])) > 1, "answers that are all alike would agree by chance"


@pytest.mark.parametrize(("name", "direction", "other"), [(*case, other) for case, other in SAME.items()])
def test_a_method_without_a_parity_test_shares_the_code_and_the_network_of_one_that_has_it(
    name: str, direction: Direction, other: str
) -> None:
    assert (other, direction) in CASES
    assert (other, direction) not in SAME
    ours, theirs = exportable(name, direction), exportable(other, direction)
    for answering in ("to_label", "to_photo", "label_scores") if direction == "to_label" else ("to_photo",):
        assert getattr(type(ours), answering) is getattr(type(theirs), answering)
    assert (ours.noise_shape, ours.multiple_of) == (theirs.noise_shape, theirs.multiple_of)
    side = {"to_label": "label_generator", "to_photo": "photo_generator"}[direction]
    network, given = (getattr(method, side, None) or method.generator for method in (ours, theirs))
    assert repr(network) == repr(given)
    network.load_state_dict(given.state_dict())
    half = tiny_batch(length=2, size=tiny_size(name)).paired
    with torch.inference_mode():
        if direction == "to_label":
            answers = [each.eval().to_label(half.photo) for each in (ours, theirs)]
        else:
            noise = None if ours.noise_shape is None else torch.randn(2, *ours.noise_shape)
            answers = [each.eval().to_photo(half.label, noise) for each in (ours, theirs)]
    assert torch.equal(*answers)
    assert len(answers[0].unique()) > 1
