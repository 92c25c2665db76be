"""Who may call a route: each declares a scope or that it is public, and a route that declares nothing stops the start."""

from typing import Final, Literal, TypeAlias

from mailrail.accounts import service as accounts
from mailrail.accounts.model import KeyMissing, Scope
from mailrail.errors import StartError
from mailrail.web.context import App, Request

PUBLIC: Final = "public"
Access: TypeAlias = Scope | Literal["public"]


async def authenticate(request: Request) -> None:
    """Request middleware: finds the account behind the key and checks the route's scope."""
    # A request that matched no route goes on to its 404.
    if request.route is None or request.route.ctx.access == PUBLIC:
        return
    request.ctx.caller = await accounts.authenticate(
        request.app.ctx.pool, bearer(request.headers.get("authorization")), request.route.ctx.access
    )


def bearer(header: str | None) -> str:
    """The key in an Authorization header. Raises KeyMissing."""
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise KeyMissing
    return key.strip()


def check_declared(app: App) -> None:
    """Raises StartError for a route without a declaration."""
    for route in app.router.routes:
        access = getattr(route.ctx, "access", None)
        if access != PUBLIC and not isinstance(access, Scope):
            raise StartError(f"the route {route.path} does not say who may call it")
