"""A FastAPI application in front of the upstream: some paths are answered here, the others go on."""

from asgi_bridge import Bridge, PassOn
from fastapi import FastAPI
from pydantic import BaseModel

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

bridge = Bridge()


class Conf(BaseModel):
    """The JSON in a route's `value`. A field that is not here refuses the route, so a typing error is found."""

    greeting: str = "hello"


@bridge.plugin("my-plugin", phase="request")
def make(conf: Conf) -> FastAPI:
    """Make the application for one route."""
    # No /docs here: that path is the upstream's. Dependencies guard the routes of the application, not what is mounted.
    app = FastAPI(openapi_url=None)

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"greeting": conf.greeting}

    @app.api_route("/{path:path}", methods=METHODS)
    async def others() -> PassOn:
        return PassOn(headers={"x-greeting": conf.greeting})

    return app
