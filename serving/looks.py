"""The page's pieces of HTML: a model's card, the legend, the overlay, the places where nothing is yet; and its style sheet."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from serving.answers import Segmentation
from serving.imaging import Bytes, encode_photo
from serving.palette import encode_label
from serving.translator import ExportedModel

_PREVIEW_SIDE = 1024
CLASSES = "Classes and colours"
CSS = """
.gradio-container {max-width: 1180px !important; margin: 0 auto !important}
#head h1 {font-size: 1.7rem; margin: .2rem 0 .1rem} #head p {color: var(--body-text-color-subdued); margin: 0}
.card {color: var(--body-text-color-subdued); font-size: .9rem; padding: .1rem .2rem}
.legend {width: 100%; border: none !important; border-collapse: collapse; font-size: .92rem}
.legend tr {border: none !important}
.legend td {padding: .22rem .4rem; border: none; border-bottom: 1px solid var(--border-color-primary)}
.legend .swatch {display: inline-block; width: 1.5rem; height: 1rem; border-radius: .25rem; border: 1px solid #8888; vertical-align: middle}
.legend .bar {background: var(--border-color-primary); border-radius: .25rem; height: .55rem; min-width: 6rem}
.legend .bar div {height: 100%; border-radius: .25rem} .legend .number {text-align: right; font-variant-numeric: tabular-nums}
.stack {position: relative; line-height: 0; border-radius: .5rem; overflow: hidden} .stack img {width: 100%; image-rendering: auto}
.stack img + img {position: absolute; inset: 0; opacity: .5; image-rendering: pixelated}
.empty {color: var(--body-text-color-subdued); padding: 2rem; text-align: center}
.empty {border: 1px dashed var(--border-color-primary); border-radius: .5rem}
footer {display: none !important}
.toast-title-row {visibility: hidden} [data-testid="status-tracker"] > .error {font-size: 0}
[data-testid="status-tracker"] > .error::after {content: "No answer"; font-size: .9rem}
"""


def described(model: ExportedModel) -> str:
    """A model's card: its description, how well it was measured to be, and where it runs."""
    parts = [
        html.escape(model.manifest.description),
        *_measured(model.manifest.metrics),
        f"Runs on {html.escape(model.provider.removesuffix('ExecutionProvider'))}.",
        *([f'<a href="/v1/models/{quote(model.name)}/legend" target="_blank">{CLASSES}</a>'] if model.manifest.label.classes else []),
    ]
    return f'<div class="card">{" ".join(parts)}</div>'


def stacked(found: Segmentation) -> str:
    """The photo with the colours over it, as two pictures whose opacity the slider sets in the browser."""
    if found.ids is None:
        return empty("This model answers with a picture: there is nothing to lay over the photo.")
    ids = _small(found.ids)
    top = encode_label(ids, found.domain)
    bottom = encode_photo(_small(found.photo), "jpeg")
    return (
        f'<div class="stack"><img alt="the photo" src="data:image/jpeg;base64,{base64.b64encode(bottom).decode()}">'
        f'<img alt="the label map over it" src="data:image/png;base64,{base64.b64encode(top).decode()}"></div>'
    )


def _small(pixels: Bytes) -> Bytes:
    height, width = pixels.shape[:2]
    scale = _PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    resampling = Image.Resampling.BOX if pixels.ndim == 3 else Image.Resampling.NEAREST
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


def legend(found: Segmentation) -> str:
    """The classes found, largest first, with their colours, shares and how sure the model is of them."""
    if found.ids is None:
        return empty("This model has no classes.")
    rows = []
    for part in found.shares():
        colour = "rgb({},{},{})".format(*part.row.color)
        sure = "" if part.confidence is None else f"{100 * part.confidence:.0f} % sure"
        rows.append(
            f'<tr><td><span class="swatch" style="background:{colour}"></span></td><td>{html.escape(part.row.name)}</td>'
            f'<td class="bar-cell"><div class="bar"><div style="width:{100 * part.share:.1f}%;background:{colour}"></div></div></td>'
            f'<td class="number">{100 * part.share:.1f} %</td><td class="number">{sure}</td></tr>'
        )
    return f'<table class="legend"><tbody>{"".join(rows)}</tbody></table>'


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    """The mean IoU of the first split that has one, as a sentence."""
    found = [(split, figures["mean_iou"]) for split, figures in metrics.items() if isinstance(figures.get("mean_iou"), float)]
    return [f"Mean IoU {found[0][1]:.3f} on {html.escape(found[0][0])}."] if found else []


def empty(sentence: str) -> str:
    """A place where something will appear."""
    return f'<div class="empty">{html.escape(sentence)}</div>'
