"""A gate: the client's API key is looked up in a table, and the upstream gets the user's name."""

import hashlib

from asgi_bridge import Bridge, PassOn
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

bridge = Bridge()


class Conf(BaseModel):
    """The JSON in a route's `value`. A field that is not here refuses the route, so a typing error is found."""

    users: dict[str, str] = Field(
        description="SHA-256 of an API key, in hex → the user's name. Who reads the routes cannot log in with a digest."
    )
    header: str = "x-api-key"
    user_header: str = "x-user"


@bridge.plugin("my-plugin", phase="request")
def make(conf: Conf) -> ASGIApp:
    """Make the application for one route."""

    async def gate(request: Request) -> Response:
        key = request.headers.get(conf.header, "")
        user = conf.users.get(hashlib.sha256(key.encode()).hexdigest())
        if user is None:
            problem = {"title": "Unauthorized", "status": 401, "detail": f"Send a valid {conf.header}."}
            return JSONResponse(problem, 401, {"www-authenticate": "ApiKey"}, "application/problem+json")
        # the upstream does not need the key, and gets no name that the client wrote
        return PassOn(headers={conf.user_header: user, conf.header: None})

    return Starlette(routes=[Route("/{path:path}", gate, methods=METHODS)])
