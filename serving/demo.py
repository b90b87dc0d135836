"""The page: a tab for each direction, examples to click, legend, overlay and download; mounted on the service at /ui."""

from __future__ import annotations

import html
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from fastapi import FastAPI

from serving import looks, noroom
from serving.answers import encode_photos, encode_segmentation
from serving.asked import SEEDS, SegmentOptions
from serving.errors import Refusal
from serving.imaging import encode_photo
from serving.manifest import DirectionName, Domain
from serving.operations import Operations
from serving.palette import encode_label
from serving.remedies import PAGE, in_words
from serving.sketches import SKETCHES, sketch

T = TypeVar("T")
_KEPT_SECONDS = 3600
_FAILED = "That did not work"
_SET_OPACITY = "(value) => {const top = document.querySelector('.stack img + img'); if (top) top.style.opacity = value / 100}"
_SNAP = "Take the nearest class for colours that belong to none"
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
        css=looks.CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        max_file_size=operations.settings.max_bytes,
        enable_monitoring=False,
    )
    noroom.install_in_page(app)
    return app


@dataclass(frozen=True)
class _Offer:
    """The models of a direction, equal where a visitor would see the same."""

    names: tuple[str, ...]
    default: str | None  # None where no model offers the direction
    version: str | None  # of the default


class _Page:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._folder = Path(tempfile.mkdtemp(prefix="fewpair-page-"))

    def blocks(self) -> gr.Blocks:
        """The whole page."""
        page = gr.Blocks(title="fewpair", analytics_enabled=False, delete_cache=(600, _KEPT_SECONDS))
        with page:
            gr.HTML(
                "<h1>fewpair</h1><p>Image translators trained from a handful of labelled photos. "
                'Each is also there over REST: <a href="/v1/docs">the API</a></p>',
                elem_id="head",
            )
            nothing = gr.HTML(looks.empty("No model here can be served: /readyz says why."), visible=self._nothing(), elem_id="nothing")
            with gr.Tabs(visible=not self._nothing()) as tabs:
                for direction, title in _TITLES.items():
                    offer = self._offer(direction)
                    with gr.Tab(title, id=direction, visible=offer.default is not None) as tab:
                        shown = self._segment_tab(offer) if direction == "to_label" else self._synthesize_tab(offer)
                    renew = partial(self._renewed, direction, offer, tab, *shown)
                    page.load(renew, None, [tab, *shown], api_visibility="private", show_progress="hidden")
            page.load(self._something, None, [nothing, tabs], api_visibility="private", show_progress="hidden")
        page.queue(default_concurrency_limit=8, max_size=64)  # how many really run is the gate's business
        return page

    def _segment_tab(self, offer: _Offer) -> list[gr.Component]:
        """Build it; the model, and the fields that show the chosen one."""
        shown, pictures, _ = self._fields("to_label", offer.default)
        model, card = _model_choice("to_label", offer, card=shown)
        with gr.Row():
            with gr.Column():
                photo = _picture_field("Photo", elem_id="photo")
                go = gr.Button("Find the label map", variant="primary", elem_id="segment")
                examples = _gallery(pictures, elem_id="photo-examples")
            with gr.Column():
                label = gr.Image(
                    label="Label map", type="filepath", format="png", height=320, interactive=False, buttons=["fullscreen"], elem_id="label"
                )
                download = gr.DownloadButton("Download the label map (PNG)", interactive=False, elem_id="download-label")
                legend = gr.HTML(looks.empty("The classes found appear here, largest first."), elem_id="legend")
        gr.HTML('<div class="card">The label map laid over the photo</div>')
        with gr.Row():
            with gr.Column(scale=2):
                overlay = gr.HTML(looks.empty("It appears here."), elem_id="overlay")
            with gr.Column(scale=1):
                opacity = gr.Slider(0, 100, 50, step=1, label="Opacity of the colours in %", elem_id="opacity")
        outputs = [label, overlay, legend, download, opacity]
        go.click(self._segment, [photo, model], outputs, api_name="segment")
        opacity.input(None, opacity, None, js=_SET_OPACITY)
        examples.select(self._example_of("to_label"), model, photo, api_visibility="private").then(
            self._segment, [photo, model], outputs, api_visibility="private"
        )
        model.change(partial(self._chosen, "to_label"), model, [card, examples], api_visibility="private")
        return [model, card, examples]

    def _synthesize_tab(self, offer: _Offer) -> list[gr.Component]:
        """Build it; the model, and the fields that show the chosen one."""
        shown, pictures, seeded = self._fields("to_photo", offer.default)
        model, card = _model_choice("to_photo", offer, card=shown)
        with gr.Row():
            with gr.Column():
                label = _picture_field("Label map: class colours or ids", elem_id="label-input")
                with gr.Row():
                    seed = gr.Number(label="Seed", value=1, precision=0, elem_id="seed")  # a range would be told in Gradio's words
                    snap = gr.Checkbox(label=_SNAP, elem_id="snap")
                with gr.Row():
                    go = gr.Button("Make a photo", variant="primary", elem_id="synthesize")
                    again = gr.Button("Another seed", interactive=seeded, elem_id="another-seed")
                examples = _gallery(pictures, elem_id="label-examples")
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
        model.change(partial(self._chosen, "to_photo"), model, [card, examples, again], api_visibility="private")
        return [model, card, examples, again]

    def _offer(self, direction: DirectionName) -> _Offer:
        shelf = self._operations.shelf
        default = shelf.models.get(shelf.defaults.get(direction, ""))
        names = tuple(model.name for model in shelf.models.values() if model.offers(direction))
        return _Offer(names, default.name, default.manifest.digest) if default else _Offer(names, None, None)

    def _nothing(self) -> bool:
        return not self._operations.shelf.models

    def _something(self) -> tuple[gr.HTML, gr.Tabs]:
        """What there is beside the tabs' own fields; who opens the page on a tab that is not offered any more is shown the other."""
        offered = [direction for direction in _TITLES if self._offer(direction).names]
        elsewhere: dict[str, Any] = {"selected": offered[0]} if offered and offered[0] != next(iter(_TITLES)) else {}
        return gr.HTML(visible=not offered), gr.Tabs(visible=bool(offered), **elsewhere)

    def _renewed(self, direction: DirectionName, built: _Offer, tab: gr.Tab, *shown: gr.Component) -> Any:
        """What a visitor sees otherwise than the page was built, because the models have been reloaded since."""
        now = self._offer(direction)
        if now == built:
            return gr.skip()
        model, *fields = shown
        chosen = gr.Dropdown(choices=list(now.names), value=now.default)
        return {tab: gr.Tab(visible=bool(now.names)), model: chosen, **dict(zip(fields, self._chosen(direction, now.default), strict=True))}

    def _chosen(self, direction: DirectionName, name: str | None) -> list[Any]:
        """What the fields show when a model was chosen."""
        try:
            card, examples, seeded = self._fields(direction, name)
        except Refusal as refusal:  # it may be gone since the page was opened
            raise _spoken(refusal) from None
        return [card, examples, *([gr.Button(interactive=seeded)] if direction == "to_photo" else [])]

    def _fields(self, direction: DirectionName, name: str | None) -> tuple[str, list[tuple[str, str]], bool]:
        """Of a model: its card, examples, and whether it makes another photo of another seed."""
        if name is None:
            return "", [], False
        model = self._operations.shelf.choose(name, direction)
        return (
            looks.described(model),
            self._examples(direction, model.manifest.label),
            model.manifest.directions[direction].noise is not None,
        )

    async def _segment(self, photo: str | None, model: str) -> tuple[str, str, str, Any, int]:
        """Photo to label map: the palette PNG, the overlay, the legend."""
        path = _given(photo, "Choose a photo first: drop one on the left, or click an example.")
        try:
            found = await self._operations.segmentation(path.read_bytes, model=model)
        except Refusal as refusal:
            raise _spoken(refusal) from None

        def shown() -> tuple[str, str, str]:
            body = encode_segmentation(found, SegmentOptions(output="colours"), name=path.stem).body
            return self._keep(body, f"label-{path.stem[:40]}.png"), looks.stacked(found), looks.legend(found)

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
        noisy = made.model.manifest.directions["to_photo"].noise is not None
        seeds = f"Seed {made.seeds[0]}." if noisy else "This model takes no noise: every seed gives this photo."
        return file, f'<div class="card">Read as {made.spelling}. {seeds}</div>', gr.DownloadButton(value=file, interactive=True)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """Encode in a thread: the loop answers everybody else meanwhile."""
        return await self._operations.gate.off_loop(work)

    def _examples(self, direction: DirectionName, domain: Domain) -> list[tuple[str, str]]:
        if direction == "to_photo" and domain.kind == "picture":
            return []
        return [(self._example(direction, index, domain=domain), "") for index in range(SKETCHES)]

    def _example(self, direction: DirectionName, index: int, *, domain: Domain) -> str:
        photo, ids = sketch(index, domain)
        body = encode_photo(photo, "png") if direction == "to_label" else encode_label(ids, domain)
        return self._keep(body, f"{'street' if direction == 'to_label' else 'street-label'}-{index + 1}.png")

    def _example_of(self, direction: DirectionName) -> Any:
        def example(model: str, chosen: gr.SelectData) -> str:
            try:
                domain = self._operations.shelf.choose(model, direction).manifest.label
            except Refusal as refusal:
                raise _spoken(refusal) from None
            return self._example(direction, int(chosen.index), domain=domain)

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


def _model_choice(direction: DirectionName, offer: _Offer, *, card: str) -> tuple[gr.Dropdown, gr.HTML]:
    with gr.Row(equal_height=True):
        model = gr.Dropdown(list(offer.names), value=offer.default, label="Model", scale=1, elem_id=f"model-{direction}")
        # Whether it is there is asked of the models that there are now, which answer with a sentence.
        model.preprocess = lambda payload: payload  # type: ignore[method-assign]
        with gr.Column(scale=2):
            return model, gr.HTML(card, elem_id=f"card-{direction}")


def _picture_field(label: str, *, elem_id: str) -> gr.Image:
    field = gr.Image(label=label, type="filepath", sources=["upload", "clipboard"], height=320, elem_id=elem_id)
    # Gradio would open the file first and fail in its own words; the server's own reading refuses it in ours.
    field.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    move = field.async_move_resource_to_block_cache

    async def files_only(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).startswith(("http://", "https://")):  # Gradio would download it
            raise _toast(_FAILED, "The page takes files, not addresses.")
        return await move(url_or_file_path)

    field.async_move_resource_to_block_cache = files_only  # type: ignore[method-assign]
    return field


def _gallery(pictures: list[tuple[str, str]], *, elem_id: str) -> gr.Gallery:
    gr.HTML('<div class="card">Or click an example</div>')
    return gr.Gallery(
        pictures, show_label=False, columns=SKETCHES, height=196, object_fit="contain", allow_preview=False, interactive=False,
        buttons=[], elem_id=elem_id,
    )  # fmt: skip


def _given(path: str | None, otherwise: str) -> Path:
    if path is None:
        raise _toast("Nothing to translate yet", otherwise)
    return Path(path)


def _spoken(refusal: Refusal) -> gr.Error:
    told = in_words(refusal, PAGE, snap=_SNAP, classes=f"“{looks.CLASSES}” above")
    return _toast(_FAILED, f"{told.message[:1].upper()}{told.message[1:]} {told.hint}".strip(), seconds=20)


def _toast(title: str, words: str, *, seconds: float = 10) -> gr.Error:
    # Gradio 6.31 shows "Error" whatever the title is: the style sheet hides that, and the title stands in the message, which is HTML.
    return gr.Error(f"<strong>{title}</strong><br>{html.escape(words)}", title=title, duration=seconds, print_exception=False)
