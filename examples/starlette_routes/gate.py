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
    """What a route may say in its `value`. Fields that are not here refuse the route: a typing error is not silent."""

    model_config = ConfigDict(strict=True)  # "false" in quotes is no false

    maintenance: bool = False
    retry_after: int = 300  # seconds


async def health(request: Request) -> Response:
    # it says that the gateway and its runner work, whatever the upstream does
    return JSONResponse({"status": "ok"})


async def robots(request: Request) -> Response:
    return PlainTextResponse("User-agent: *\nDisallow: /cart\n")


async def moved(request: Request) -> Response:
    # 308 keeps the method and the body, 301 would make a GET of a POST
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
        # what no route matches; `upstream` is an ASGI application as any other
        default=closed if conf.maintenance else upstream,
        # the upstream has its own opinion about slashes at the end
        redirect_slashes=False,
    )
    # answers what the router raises: 405 where a route does not have the method
    return ExceptionMiddleware(router)
