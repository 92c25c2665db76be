"""Who may call a route: each declares a scope or that it is public, and a route that declares nothing stops the start."""

from typing import Final, Literal, TypeAlias

from mailrail.accounts import service as accounts
from mailrail.accounts.model import KeyMissing, Scope
from mailrail.errors import StartError
from mailrail.web.context import App, Request

PUBLIC: Final = "public"
Access: TypeAlias = Scope | Literal["public"]


async def authenticate(request: Request) -> None:
    """Finds the account behind the key, counts the request against its plan and checks the route's scope.

    Raises KeyMissing, KeyInvalid, RateLimited, ScopeMissing.
    """
    assert request.route is not None
    access, ctx = request.route.ctx.access, request.app.ctx
    if access == PUBLIC:
        return
    key = bearer(request.headers.get("authorization"))
    caller = await accounts.authenticate(ctx.pool, ctx.proven_keys, key)
    request.ctx.caller = caller
    request.ctx.allowance = await ctx.limits.count(ctx.pool, caller.account)
    if request.ctx.allowance is not None:
        request.ctx.allowance.check()
    accounts.require_scope(caller, access)


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
