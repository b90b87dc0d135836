"""The page at /ui: Gradio provides the frame; the panes are HTML and JavaScript in `static/` that call /v1."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Refusal
from serving.inference.pipeline import Backend

_STATIC = Path(__file__).parent / "static"
_TITLE = "fewpair: paint a street, get a photo"
_SUMMARY = "Paint a map of a street and see it become a photo, or read a photo as a map. Learned from few labels."
_TABS = {"paint": "Paint → photo", "read": "Photo → map"}
_STUDIO_TABS = {"pick": "Pick", "label": "Label", "train": "Train", "read": "Photo → map"} | _TABS
# In the HTML itself: Gradio's script adds its `head` later, when the browser has asked for /favicon.ico.
_HEAD_TAGS = '<link rel="icon" type="image/svg+xml" href="page/icon.svg">' + "".join(
    f'<link rel="modulepreload" href="page/{name}.js">'
    for name in ("page", "labels", "head", "canvas", "paint", "project", "read", "view")
)
_GRADIO_PREVIEW = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>')
_THEME = gr.themes.Base(
    primary_hue="teal", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    body_background_fill="*neutral_50",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    color_accent="*primary_700",
    border_color_primary="*neutral_300",
)


def build_page(backend: Backend) -> FastAPI:
    """Return the page as an app of its own that answers under /ui."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    # Gradio's API keeps uploads and fetches URLs; the panes use /v1 alone.
    refusal = Refusal(404, "not_found", "Gradio's API is closed.", hint="The page uses /v1: GET /v1/docs shows it.")
    app.mount("/ui/gradio_api", JSONResponse({"error": refusal.error}, status_code=refusal.status))
    app.mount("/ui/page", _Static(directory=_STATIC))
    gr.mount_gradio_app(
        app,
        _blocks(studio=backend.settings.studio is not None),
        path="/ui",
        theme=_THEME,
        head='<link rel="stylesheet" href="page/page.css">',
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
    )
    app.add_middleware(_LinkPreview)
    return app


def _blocks(*, studio: bool) -> gr.Blocks:
    blocks = gr.Blocks(title=_TITLE, analytics_enabled=False)
    with blocks, gr.Column(elem_id="page"):
        _pane("head")
        with gr.Tabs():
            for name, title in (_STUDIO_TABS if studio else _TABS).items():
                with gr.Tab(title, elem_id=f"tab-{name}", render_children=True):
                    _pane(name)
    return blocks


def _pane(name: str) -> gr.HTML:
    """A part of the page: the markup of `static/NAME.html` with the behaviour of `static/NAME.js`."""
    html = (_STATIC / f"{name}.html").read_text()
    for part in ("canvas", "scenes", "snippets", "view"):
        html = html.replace(f"<!-- {part} -->", (_STATIC / f"{part}.html").read_text())
    return gr.HTML(
        html_template=html,
        js_on_load=f"import(new URL('page/{name}.js', document.baseURI)).then(pane => new pane.default(element))"
        ".catch(problem => { element.textContent = problem.message })",
        apply_default_css=False,
        elem_id=name,
        elem_classes="pane",
    )


class _Static(StaticFiles):
    """The page's own files, which a browser asks for again after an upgrade."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file, to be revalidated at each use."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


class _LinkPreview:
    """Replaces Gradio's own link preview, in the page's HTML, with the page's title and picture."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/ui/"):
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, collect)
        start, *parts = messages
        body = b"".join(part.get("body", b"") for part in parts)
        page = _GRADIO_PREVIEW.sub(b"", body).replace(b"<head>", b"<head>" + _preview(Request(scope)), 1)
        MutableHeaders(scope=start)["Content-Length"] = str(len(page))
        await send(start)
        await send({"type": "http.response.body", "body": page})


def _preview(request: Request) -> bytes:
    """The tags by which chat programs show a link to the page."""
    picture = request.url.replace(path=f"{request.scope['path']}page/preview.jpg", query="")
    values = {"title": _TITLE, "description": _SUMMARY, "image": str(picture), "type": "website"}
    tags = [f'<meta property="og:{name}" content="{value}">' for name, value in values.items()]
    tags.append('<meta name="twitter:card" content="summary_large_image">')
    return "".join([f"<title>{_TITLE}</title>", _HEAD_TAGS, *tags]).encode()
