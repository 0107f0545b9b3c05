"""The applications of frameworks that are measured, with a server around them and without."""

from typing import Annotated, Any

from fastapi import FastAPI, Query
from flask import Flask, request
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

__all__ = ["Tagging", "cors", "fastapi", "flask", "router"]


async def items(request: Request) -> Response:
    """Answer in one line."""
    return PlainTextResponse(f"{request.path_params['category']}, page {request.query_params['page']}")


router = Starlette(
    routes=[
        Route("/", items),
        Route("/health", items),
        Route("/basket/{number:int}", items, methods=["GET", "PUT"]),
        Route("/catalog/{category}/items", items),
    ]
)

fastapi = FastAPI(openapi_url=None)


@fastapi.get("/catalog/{category}/items")
async def found(
    category: str,
    page: Annotated[int, Query(ge=1)],
    sort: Annotated[str, Query(pattern="^[a-z]+-(asc|desc)$")],
    q: Annotated[str | None, Query(max_length=50)] = None,
) -> dict[str, Any]:
    """Check three arguments, and answer with JSON."""
    return {"category": category, "page": page, "sort": sort, "q": q}


flask = Flask(__name__)


@flask.get("/catalog/<category>/items")
def listed(category: str) -> str:
    """Answer in one line."""
    return f"{category}, page {request.args['page']}"


class Tagging(BaseHTTPMiddleware):
    """Sets a header of the response."""

    def __init__(self, app: ASGIApp, x: int = 1) -> None:
        super().__init__(app)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-bench"] = "1"
        return response


def cors(app: ASGIApp, x: int = 1) -> ASGIApp:
    """Let pages of one other origin read the responses."""
    return CORSMiddleware(app, allow_origins=["https://shop.example.com"], allow_credentials=True)
