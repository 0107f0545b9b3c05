"""The gate in Starlette. `PassOn` is a response like any other."""

from keys import DETAIL, METHODS, user_of
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_bridge import Bridge, PassOn


async def gate(request: Request) -> Response:
    user = user_of(request.headers.get("x-api-key"))
    if user is None:
        problem = {"title": "Unauthorized", "status": 401, "detail": DETAIL}
        return JSONResponse(problem, 401, {"www-authenticate": "ApiKey"}, "application/problem+json")
    return PassOn(headers={"x-user": user, "x-api-key": None})


bridge = Bridge()
bridge.mount("gate", Starlette(routes=[Route("/{path:path}", gate, methods=METHODS)]))
