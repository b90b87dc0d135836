"""The page: a tab for each direction, examples to click, legend, overlay and download; mounted on the service at /ui."""

from __future__ import annotations

import base64
import html
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from fastapi import FastAPI
from PIL import Image

from serving.answers import Segmentation, encode_photos, encode_segmentation
from serving.asked import SEEDS, SegmentOptions
from serving.errors import Refusal
from serving.imaging import Bytes, encode_photo
from serving.manifest import DirectionName, Domain
from serving.operations import Operations
from serving.palette import encode_label
from serving.sketches import SKETCHES, sketch

T = TypeVar("T")
_PREVIEW_SIDE = 1024
_KEPT_SECONDS = 3600
_CSS = """
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
"""
_SET_OPACITY = "(value) => {const top = document.querySelector('.stack img + img'); if (top) top.style.opacity = value / 100}"
_TITLES: dict[DirectionName, str] = {"to_label": "Photo to label map", "to_photo": "Label map to photo"}


def build_page(operations: Operations) -> FastAPI:
    """The page as an app of its own that answers under /ui."""
    page = _Page(operations)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            page.forget()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    blocks = page.blocks()
    # Only launch() says so. Without it Gradio takes a mounted page for one under construction, and lets a visitor name any file of
    # this machine as his upload.
    blocks.has_launched = True
    gr.mount_gradio_app(
        app,
        blocks,
        path="/ui",
        theme=gr.themes.Soft(primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=_CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        max_file_size=operations.settings.max_bytes,
        enable_monitoring=False,
    )
    return app


class _Page:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._folder = Path(tempfile.mkdtemp(prefix="fewpair-page-"))

    def blocks(self) -> gr.Blocks:
        """The whole page."""
        offered: list[DirectionName] = [direction for direction in _TITLES if direction in self._operations.shelf.defaults]
        page = gr.Blocks(title="fewpair", analytics_enabled=False, delete_cache=(600, _KEPT_SECONDS))
        with page:
            gr.HTML(
                "<h1>fewpair</h1><p>Image translators trained from a handful of labelled photos. "
                'Each is also there over REST: <a href="/v1/docs">the API</a></p>',
                elem_id="head",
            )
            with gr.Tabs():
                for direction in offered:
                    with gr.Tab(_TITLES[direction], id=direction):
                        self._segment_tab() if direction == "to_label" else self._synthesize_tab()
        page.queue(default_concurrency_limit=8, max_size=64)  # how many really run is the gate's business
        return page

    def _segment_tab(self) -> None:
        model, card = self._model_choice("to_label")
        with gr.Row():
            with gr.Column():
                photo = _picture_field("Photo", elem_id="photo")
                go = gr.Button("Find the label map", variant="primary", elem_id="segment")
                examples = _gallery(self._examples("to_label", self._operations.shelf.defaults["to_label"]), elem_id="photo-examples")
            with gr.Column():
                label = gr.Image(
                    label="Label map", type="filepath", format="png", height=320, interactive=False, buttons=["fullscreen"], elem_id="label"
                )
                download = gr.DownloadButton("Download the label map (PNG)", interactive=False, elem_id="download-label")
                legend = gr.HTML(_empty("The classes found appear here, largest first."), elem_id="legend")
        gr.HTML('<div class="card">The label map laid over the photo</div>')
        with gr.Row():
            with gr.Column(scale=2):
                overlay = gr.HTML(_empty("It appears here."), elem_id="overlay")
            with gr.Column(scale=1):
                opacity = gr.Slider(0, 100, 50, step=1, label="Opacity of the colours in %", elem_id="opacity")
        outputs = [label, overlay, legend, download, opacity]
        go.click(self._segment, [photo, model], outputs, api_name="segment")
        opacity.input(None, opacity, None, js=_SET_OPACITY)
        examples.select(self._example_of("to_label"), model, photo, api_visibility="private").then(
            self._segment, [photo, model], outputs, api_visibility="private"
        )
        model.change(self._card, model, card, api_visibility="private")

    def _synthesize_tab(self) -> None:
        model, card = self._model_choice("to_photo")
        with gr.Row():
            with gr.Column():
                label = _picture_field("Label map: class colours or ids", elem_id="label-input")
                with gr.Row():
                    seed = gr.Number(label="Seed", value=1, precision=0, minimum=0, maximum=SEEDS - 1, elem_id="seed")
                    snap = gr.Checkbox(label="Take the nearest class for colours that belong to none", elem_id="snap")
                with gr.Row():
                    go = gr.Button("Make a photo", variant="primary", elem_id="synthesize")
                    again = gr.Button(
                        "Another seed", interactive=self._seeded(self._operations.shelf.defaults["to_photo"]), elem_id="another-seed"
                    )
                examples = _gallery(self._examples("to_photo", self._operations.shelf.defaults["to_photo"]), elem_id="label-examples")
            with gr.Column():
                photo = gr.Image(
                    label="Photo", type="filepath", height=320, interactive=False, buttons=["fullscreen"], elem_id="made-photo"
                )
                said = gr.HTML(elem_id="said")
                download = gr.DownloadButton("Download the photo (PNG)", interactive=False, elem_id="download-photo")
        inputs, outputs = [label, model, seed, snap], [photo, said, download]
        go.click(self._synthesize, inputs, outputs, api_name="synthesize")
        again.click(lambda: secrets.randbelow(SEEDS), None, seed, api_visibility="private").then(
            self._synthesize, inputs, outputs, api_visibility="private"
        )
        examples.select(self._example_of("to_photo"), model, label, api_visibility="private").then(
            self._synthesize, inputs, outputs, api_visibility="private"
        )
        model.change(self._card, model, card, api_visibility="private")
        model.change(lambda name: self._examples("to_photo", name), model, examples, api_visibility="private")
        model.change(lambda name: gr.Button(interactive=self._seeded(name)), model, again, api_visibility="private")

    def _model_choice(self, direction: DirectionName) -> tuple[gr.Dropdown, gr.HTML]:
        shelf = self._operations.shelf
        names = [model.name for model in shelf.models.values() if model.offers(direction)]
        with gr.Row(equal_height=True):
            model = gr.Dropdown(names, value=shelf.defaults[direction], label="Model", scale=1, elem_id=f"model-{direction}")
            with gr.Column(scale=2):
                card = gr.HTML(self._card(shelf.defaults[direction]))
        return model, card

    def _card(self, name: str) -> str:
        model = self._operations.shelf.find(name)
        parts = [
            html.escape(model.manifest.description),
            *_measured(model.manifest.metrics),
            f"Runs on {html.escape(model.provider.removesuffix('ExecutionProvider'))}.",
        ]
        return f'<div class="card">{" ".join(parts)}</div>'

    async def _segment(self, photo: str | None, model: str) -> tuple[str, str, str, Any, int]:
        """Photo to label map: the palette PNG, the overlay, the legend."""
        path = _given(photo, "Choose a photo first: drop one on the left, or click an example.")
        try:
            found = await self._operations.segmentation(path.read_bytes, model=model)
        except Refusal as refusal:
            raise _spoken(refusal) from None

        def shown() -> tuple[str, str, str]:
            body = encode_segmentation(found, SegmentOptions(output="colours"), name=path.stem).body
            return self._keep(body, f"label-{path.stem[:40]}.png"), _stacked(found), _legend(found)

        file, overlay, legend = await self._off_loop(shown)
        return file, overlay, legend, gr.DownloadButton(value=file, interactive=True), 50

    async def _synthesize(self, label: str | None, model: str, seed: float | None, snap: bool) -> tuple[str, str, Any]:
        """Label map to photo: the photo, and how the label map was read."""
        path = _given(label, "Choose a label map first: drop one on the left, or click an example.")
        try:
            made = await self._operations.synthesis(path.read_bytes, model=model, seed=None if seed is None else int(seed), snap=snap)
        except Refusal as refusal:
            raise _spoken(refusal) from None
        file = await self._off_loop(lambda: self._keep(encode_photos(made, "png")[0].body, f"photo-seed-{made.seeds[0]}.png"))
        seeds = f"Seed {made.seeds[0]}." if self._seeded(model) else "This model takes no noise: every seed gives this photo."
        return file, f'<div class="card">Read as {made.spelling}. {seeds}</div>', gr.DownloadButton(value=file, interactive=True)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """Encode in a thread: the loop answers everybody else meanwhile."""
        return await self._operations.gate.off_loop(work)

    def _seeded(self, name: str) -> bool:
        return self._operations.shelf.find(name).manifest.directions["to_photo"].noise is not None

    def _examples(self, direction: DirectionName, name: str) -> list[tuple[str, str]]:
        domain = self._operations.shelf.find(name).manifest.label
        if direction == "to_photo" and domain.kind == "picture":
            return []
        return [(self._example(direction, index, domain=domain), "") for index in range(SKETCHES)]

    def _example(self, direction: DirectionName, index: int, *, domain: Domain) -> str:
        photo, ids = sketch(index, domain)
        body = encode_photo(photo, "png") if direction == "to_label" else encode_label(ids, domain)
        return self._keep(body, f"{'street' if direction == 'to_label' else 'street-label'}-{index + 1}.png")

    def _example_of(self, direction: DirectionName) -> Any:
        def example(model: str, chosen: gr.SelectData) -> str:
            return self._example(direction, int(chosen.index), domain=self._operations.shelf.find(model).manifest.label)

        return example

    def forget(self) -> None:
        """Delete every file that was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self, body: bytes, name: str) -> str:
        """A file that the page may show and offer for an hour."""
        for old in self._folder.iterdir():
            if old.stat().st_mtime < time.time() - _KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        path = Path(tempfile.mkdtemp(dir=self._folder)) / name
        path.write_bytes(body)
        return str(path)


def _picture_field(label: str, *, elem_id: str) -> gr.Image:
    field = gr.Image(label=label, type="filepath", sources=["upload", "clipboard"], height=320, elem_id=elem_id)
    # Gradio would open the file first and fail in its own words; the server's own reading refuses it in ours.
    field.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    move = field.async_move_resource_to_block_cache

    async def files_only(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).startswith(("http://", "https://")):  # Gradio would download it
            raise gr.Error("The page takes files, not addresses.", title="That did not work", print_exception=False)
        return await move(url_or_file_path)

    field.async_move_resource_to_block_cache = files_only  # type: ignore[method-assign]
    return field


def _gallery(pictures: list[tuple[str, str]], *, elem_id: str) -> gr.Gallery:
    gr.HTML('<div class="card">Or click an example</div>')
    return gr.Gallery(
        pictures, show_label=False, columns=SKETCHES, height=170, object_fit="contain", allow_preview=False, interactive=False,
        buttons=[], elem_id=elem_id,
    )  # fmt: skip


def _given(path: str | None, otherwise: str) -> Path:
    if path is None:
        raise gr.Error(otherwise, title="Nothing to translate yet", print_exception=False)
    return Path(path)


def _spoken(refusal: Refusal) -> gr.Error:
    words = f"{refusal.message[:1].upper()}{refusal.message[1:]} {refusal.hint}"
    return gr.Error(html.escape(words.strip()), title="That did not work", duration=20, print_exception=False)


def _stacked(found: Segmentation) -> str:
    """The photo with the colours over it, as two pictures whose opacity the slider sets in the browser."""
    if found.ids is None:
        return _empty("This model answers with a picture: there is nothing to lay over the photo.")
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


def _legend(found: Segmentation) -> str:
    if found.ids is None:
        return _empty("This model has no classes.")
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


def _empty(sentence: str) -> str:
    return f'<div class="empty">{html.escape(sentence)}</div>'
