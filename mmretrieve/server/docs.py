"""What the API says of itself: credentials in its OpenAPI document, and Swagger UI at /docs, from an installed package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from mmretrieve.server.auth import Auth

ASSETS = Path(fastapi_offline.__file__).parent / "static"
PARAMETERS = {"validatorUrl": None, "tryItOutEnabled": True, "defaultModelsExpandDepth": 0}  # no badge of another site
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "the token of the server"},
    "basic": {"type": "http", "scheme": "basic", "description": "the user and the password of the server"},
}
"""Every credential that a server may require, so that clients that were made from one server can use another.

The cookie of a browser is not among them: its name depends on the port, and browsers send it by themselves.
"""


def add_security(app: FastAPI, auth: Auth) -> None:
    """Adds credentials to the OpenAPI document, and to each of its routes those that this server requires."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        document["components"]["securitySchemes"] = SCHEMES
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            if not auth.is_open:
                operation["security"] = [{name: []} for name in _required(auth)]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


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


def _required(auth: Auth) -> tuple[str, ...]:
    """The credentials any of which is enough."""
    return ("bearer",) if auth.token is not None else ("basic",)
