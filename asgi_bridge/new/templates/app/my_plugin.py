"""Starlette routes in front of the upstream: some paths are answered here, the others go on."""

from asgi_bridge import Bridge, PassOn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

bridge = Bridge()


class Conf(BaseModel):
    """The JSON in a route's `value`. A field that is not here refuses the route, so a typing error is found."""

    greeting: str = "hello"


@bridge.plugin("my-plugin", phase="request")
def make(conf: Conf) -> ASGIApp:
    """Make the application for one route."""

    async def hello(request: Request) -> Response:
        return JSONResponse({"greeting": conf.greeting})

    async def others(request: Request) -> Response:
        return PassOn(headers={"x-greeting": conf.greeting})

    return Starlette(routes=[Route("/hello", hello), Route("/{path:path}", others, methods=METHODS)])
