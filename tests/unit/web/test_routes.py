"""The route table: every door says who may pass."""

import pytest

from mailrail.app import create_app
from mailrail.config import Settings
from mailrail.errors import StartError
from mailrail.web.auth import PUBLIC, check_declared
from mailrail.web.context import App
from tests.support.api import Answer  # noqa: F401  switches Sanic's test mode on

PUBLIC_PATHS = {
    "o/<token:str>",
    "c/<token:str>/<link:str>",
    "u/<token:str>",
    "confirm/<token:str>",
    "events/sns",
    "healthz",
    "readyz",
    "metrics",
    "openapi.json",
    "docs",
    "docs/errors",
}


def make_app() -> App:
    """An app that is never started."""
    return create_app(Settings(secret_key="k" * 40))


def test_only_these_routes_are_public() -> None:
    assert {route.path for route in make_app().router.routes if route.ctx.access == PUBLIC} == PUBLIC_PATHS


def test_a_route_without_a_declaration_stops_the_start() -> None:
    app = make_app()
    app.add_route(lambda request: None, "/forgotten")  # type: ignore[arg-type, return-value]
    with pytest.raises(StartError, match="forgotten"):
        check_declared(app)
