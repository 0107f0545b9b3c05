"""The gate in Flask. A hook before each request answers, so no route is needed."""

from flask import Flask, request
from flask.typing import ResponseReturnValue
from keys import DETAIL, user_of

from asgi_bridge import Bridge
from asgi_bridge.wsgi import WSGIApp, pass_on

app = Flask(__name__)


@app.before_request
def gate() -> ResponseReturnValue:
    user = user_of(request.headers.get("x-api-key"))
    if user is None:
        problem = {"title": "Unauthorized", "status": 401, "detail": DETAIL}
        return problem, 401, {"content-type": "application/problem+json", "www-authenticate": "ApiKey"}
    return pass_on(headers={"x-user": user, "x-api-key": None})


bridge = Bridge()
bridge.mount("gate", WSGIApp(app))
