"""Some paths are answered at the gateway, everything else goes to the upstream."""

from pydantic import BaseModel, ConfigDict
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, upstream

bridge = Bridge()


class Conf(BaseModel):
    """The JSON in a route's `value`. A field that is not here refuses the route, so a typing error is found."""

    model_config = ConfigDict(strict=True)  # refuses "false" in quotes

    maintenance: bool = False
    retry_after: int = 300  # seconds


async def health(request: Request) -> Response:
    # shows that the gateway and its runner work, even if the upstream does not
    return JSONResponse({"status": "ok"})


async def robots(request: Request) -> Response:
    return PlainTextResponse("User-agent: *\nDisallow: /cart\n")


async def moved(request: Request) -> Response:
    # 308 keeps method and body; after a 301 a client may send a GET in place of a POST
    return RedirectResponse(request.url.replace(path=f"/articles/{request.path_params['slug']}"), 308)


@bridge.plugin("front")
def front(conf: Conf) -> ASGIApp:
    async def closed(scope: Scope, receive: Receive, send: Send) -> None:
        response = PlainTextResponse("Back soon.\n", 503, {"retry-after": str(conf.retry_after)})
        await response(scope, receive, send)

    router = Router(
        [
            Route("/health", health),
            Route("/robots.txt", robots),
            Route("/blog/{slug}", moved, methods=["GET", "POST"]),
        ],
        # for paths that no route matches; `upstream` is an ASGI application like any other
        default=closed if conf.maintenance else upstream,
        # the upstream decides about slashes at the end
        redirect_slashes=False,
    )
    # turns what the router raises into an answer, such as 405 for another method
    return ExceptionMiddleware(router)
