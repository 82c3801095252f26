"""The page on the server: its layout in Gradio, its routes, and its static files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import gradio as gr
from fastapi import FastAPI, Form, Response
from starlette.routing import BaseRoute, Match
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from demo.page_service import PageService
from demo.schemas import PageRequest, PageView
from mmretrieve.ranking.files import ExportFile, ExportFormat
from mmretrieve.server.context import AppContext
from mmretrieve.server.errors import RESPONSES, parse_json
from mmretrieve.server.middleware import SAFE
from mmretrieve.server.paths import route_path

PAGE_FOLDER = Path(__file__).parent / "page"
HEAD = '<link rel="stylesheet" href="page/style.css"><script type="module" src="page/main.js"></script>'
GRADIO_FILES = ("/assets/", "/static/")  # what the page loads of Gradio; no other route of it is served
GRADIO_PATHS = frozenset({"/", "/favicon.ico", "/manifest.json", "/theme.css"})
THEME = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}


def page(app: FastAPI, context: AppContext) -> FastAPI:
    """The server with the page at its root."""
    _add_routes(app, context, PageService(context))
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        layout(),
        path="/",
        footer_links=[],
        max_file_size=0,  # images are uploaded through the API
        show_error=False,
        head=HEAD,
        theme=gr.themes.Base(**THEME),
    )
    mounted.router.routes[-1] = _PageMount(mounted.router.routes[-1])
    return mounted


class _PageMount(BaseRoute):
    """The mount of the page at the root, for what the page loads: Gradio's routes that compute, upload or write are not served."""

    def __init__(self, mount: BaseRoute) -> None:
        self._mount = mount

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = route_path(scope)
        is_loaded = scope.get("method") in SAFE and (path in GRADIO_PATHS or path.startswith(GRADIO_FILES))
        return self._mount.matches(scope) if is_loaded else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._mount.handle(scope, receive, send)


def layout() -> gr.Blocks:
    """The layout. Each block is an HTML file of `page/`, which the scripts there fill."""
    with gr.Blocks(title="like this picture, but … · mmretrieve", analytics_enabled=False, fill_width=True) as blocks:
        _add_html("header")
        with gr.Row(equal_height=False, elem_id="layout"):
            with gr.Column(scale=0, min_width=372, elem_id="sidebar"):
                for name in ("query", "filters", "weights"):
                    _add_html(name)
            with gr.Column(scale=1, min_width=320, elem_id="main"):
                _add_html("results")
    return blocks


def _add_html(name: str) -> None:
    gr.HTML((PAGE_FOLDER / f"{name}.html").read_text(encoding="utf-8"), elem_id=name, js_on_load=None, apply_default_css=False)


def _add_routes(app: FastAPI, context: AppContext, service: PageService) -> None:
    @app.post("/page/view", include_in_schema=False, responses=RESPONSES)
    async def view(request: PageRequest) -> PageView:
        return await context.executor_of(request).run(lambda: service.view(request))

    @app.post("/page/suggestions", include_in_schema=False)
    async def suggestions(request: PageRequest) -> list[str]:
        return await context.executor_of(request).run(lambda: service.suggestions(request))

    @app.get("/page/start", include_in_schema=False)
    async def start() -> dict[str, Any]:
        return await context.read_executor.run(service.start)

    @app.post("/page/export/{form}", include_in_schema=False)
    async def export(form: ExportFormat, request: Annotated[str, Form()]) -> Response:
        page_request = parse_json(PageRequest, request)
        return _download(await context.executor_of(page_request).run(lambda: service.export(page_request, form)))

    app.mount("/page", StaticFiles(directory=PAGE_FOLDER), name="page")


def _download(file: ExportFile) -> Response:
    return Response(
        file.content, media_type=file.media_type, headers={"Content-Disposition": f'attachment; filename="{file.name}"'}
    )
