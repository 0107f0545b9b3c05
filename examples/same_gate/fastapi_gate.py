"""The gate in FastAPI: a dependency knows the caller, and an exception handler writes what it refuses."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from keys import DETAIL, METHODS, user_of

from asgi_bridge import Bridge, PassOn


def caller(key: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]) -> str:
    user: str | None = user_of(key)
    if user is None:
        raise HTTPException(401, DETAIL, {"www-authenticate": "ApiKey"})
    return user


app = FastAPI(openapi_url=None)  # /docs and /openapi.json are the upstream's


@app.exception_handler(HTTPException)
async def refuse(request: Request, error: HTTPException) -> JSONResponse:
    problem = {"title": "Unauthorized", "status": error.status_code, "detail": error.detail}
    return JSONResponse(problem, error.status_code, error.headers, "application/problem+json")


@app.api_route("/{path:path}", methods=METHODS)
async def gate(user: Annotated[str, Depends(caller)]) -> PassOn:
    return PassOn(headers={"x-user": user, "x-api-key": None})


bridge = Bridge()
bridge.mount("gate", app)
