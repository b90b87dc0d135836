"""The map of a set: every photo's features on a plane, with the picks marked by their rank and each photo in its pick's colour."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from trainer.data.selection import BLOCK, Picks

AXES_FROM = 2000
"""From at most so many photos, evenly taken, the axes are computed; all are drawn."""
SPOKES = 3000
"""Up to so many photos a line joins each to its pick."""
NUMBERED = 100
"""Up to so many picks carry their rank."""


def plane(features: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components: Float64[N,2], and the share of the variance that they hold.

    No start is drawn, and each axis points to where its largest weight is positive: one set has one map.
    """
    every = features[np.linspace(0, len(features) - 1, min(len(features), AXES_FROM)).astype(int)].astype(np.float64)
    centre = every.mean(axis=0)
    every -= centre
    # The eigenvectors of the smaller of the two products: D x D, or N x N where there are fewer photos than dimensions.
    tall = len(every) >= every.shape[1]
    values, vectors = np.linalg.eigh(every.T @ every if tall else every @ every.T)
    axes = vectors[:, ::-1][:, :2] if tall else every.T @ vectors[:, ::-1][:, :2]
    axes = axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-30)
    if axes.shape[1] < 2:  # one photo
        axes = np.pad(axes, ((0, 0), (0, 1)))
    axes *= np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0) < 0, -1, 1)
    total = float(np.maximum(values, 0).sum())
    places = np.concatenate([(features[start : start + BLOCK] - centre) @ axes for start in range(0, len(features), BLOCK)])
    return places, float(values[::-1][:2].sum()) / total if total > 0 else 1.0


def set_map(features: np.ndarray, picks: Picks, *, title: str, notes: Sequence[str] = ()) -> Image.Image:
    """The picture, about 1500 x 1250 pixels."""
    places, share = plane(features)
    colours = matplotlib.colormaps["tab20"](np.arange(len(picks.indices)) % 20)
    of_photo = colours[picks.stands_for]
    figure = Figure(figsize=(10, 8.4), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    across, up = places[:, 0], places[:, 1]
    chosen = places[list(picks.indices)]
    picked_across, picked_up = chosen[:, 0], chosen[:, 1]
    if len(places) <= SPOKES:
        ends = np.stack([places, chosen[picks.stands_for]], axis=1)
        axes.add_collection(LineCollection(list(ends), colors=of_photo, linewidths=0.6, alpha=0.45, zorder=1))
    size = float(np.clip(8000 / len(places), 1.5, 26))
    axes.scatter(across, up, s=size, c=of_photo, linewidths=0, alpha=0.9, zorder=2)
    numbered = len(chosen) <= NUMBERED
    axes.scatter(picked_across, picked_up, s=190 if numbered else 30, c="white", edgecolors=list(colours), linewidths=2.2, zorder=3)
    axes.scatter(picked_across, picked_up, s=230 if numbered else 40, facecolors="none", edgecolors="black", linewidths=0.8, zorder=4)
    if numbered:
        for rank, place in enumerate(chosen):
            axes.annotate(
                str(rank + 1), place, ha="center", va="center", fontsize=8 if rank < 99 else 6, fontweight="bold", zorder=5 + rank
            )
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.set_xlabel("first principal component of the features", fontsize=9)
    axes.set_ylabel("second principal component", fontsize=9)
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(labelsize=8)
    sampled = f", computed from {AXES_FROM} photos evenly taken," if len(places) > AXES_FROM else ""
    told = [
        f"The two axes (PCA){sampled} hold {100 * share:.0f} % of the variance: photos far apart here differ, close ones may too.",
        "Numbers are the ranks on the contact sheet; a photo has the colour of the pick that stands for it.",
        *notes,
    ]
    figure.supxlabel("\n".join(told), fontsize=8.5, color="0.3", parse_math=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
