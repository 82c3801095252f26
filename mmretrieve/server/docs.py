"""The API for people, at /docs: Swagger UI over the OpenAPI document, with scripts and styles of an installed package."""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

ASSETS = Path(fastapi_offline.__file__).parent / "static"
PARAMETERS = {"validatorUrl": None, "tryItOutEnabled": True, "defaultModelsExpandDepth": 0}  # no badge of another site


def add_docs(app: FastAPI) -> None:
    """Adds the page and its assets."""
    app.mount("/docs/assets", StaticFiles(directory=ASSETS))

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope["root_path"]
        assets = f"{root}/docs/assets"
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} API",
            swagger_js_url=f"{assets}/swagger-ui-bundle.js",
            swagger_css_url=f"{assets}/swagger-ui.css",
            swagger_favicon_url=f"{assets}/favicon.png",
            swagger_ui_parameters=PARAMETERS,
        )
