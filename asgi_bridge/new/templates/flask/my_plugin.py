"""A Flask application in front of the upstream: some paths are answered here, the others go on."""

from asgi_bridge import Bridge
from asgi_bridge.wsgi import WSGIApp, pass_on
from flask import Flask
from flask.typing import ResponseReturnValue
from pydantic import BaseModel

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

bridge = Bridge()


class Conf(BaseModel):
    """The JSON in a route's `value`. A field that is not here refuses the route, so a typing error is found."""

    greeting: str = "hello"


@bridge.plugin("my-plugin", phase="request")
def make(conf: Conf) -> WSGIApp:
    """Make the application for one route."""
    app = Flask(__name__, static_folder=None)  # /static is the upstream's

    @app.get("/hello")
    def hello() -> ResponseReturnValue:
        return {"greeting": conf.greeting}

    @app.route("/", defaults={"path": ""}, methods=METHODS)
    @app.route("/<path:path>", methods=METHODS)
    def others(path: str) -> ResponseReturnValue:
        return pass_on(headers={"x-greeting": conf.greeting})

    return WSGIApp(app, pool="my-plugin")  # the routes share the threads
