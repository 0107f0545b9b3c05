"""A FastAPI application in front of an upstream. It checks caller and order, and refuses with 401, 403 or 422."""

import hashlib
import logging
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import BaseModel, ConfigDict, Field

from asgi_bridge import Bridge, PassOn

audit_log = logging.getLogger("orders.audit")


class User(BaseModel):
    """A caller, and what the caller may do."""

    name: str
    scopes: frozenset[str]


# Stands in for your database. It has only digests, so nobody can use a stolen copy to log in.
#   python -c 'import hashlib; print(hashlib.sha256(b"ada-secret").hexdigest())'
USERS = {
    # ada-secret
    "cb3ac4f9f4ba2da6f063a94debb6009ec2ee2abcf28f90cd97fdb92fdc44d736": User(
        name="ada", scopes=frozenset({"orders:read", "orders:write"})
    ),
    # bob-secret
    "9f03ef1533a68d2f506f81ef463c1183a82a6bd40e45613f36e6fe1889cf1b99": User(
        name="bob", scopes=frozenset({"orders:read"})
    ),
}

# auto_error=False, because a caller needs only one of the two
bearer = HTTPBearer(auto_error=False)
api_key = APIKeyHeader(name="X-API-Key", auto_error=False)


async def caller(
    scopes: SecurityScopes,
    token: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    key: Annotated[str | None, Depends(api_key)],
) -> User:
    """Return the caller. Answers 401 without valid credentials, and 403 without the scopes of the endpoint."""
    secret = token.credentials if token is not None else key or ""
    user = USERS.get(hashlib.sha256(secret.encode()).hexdigest())
    if user is None:
        raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Bearer"})
    if not user.scopes.issuperset(scopes.scopes):
        challenge = f'Bearer error="insufficient_scope", scope="{scopes.scope_str}"'
        raise HTTPException(403, f"{user.name} lacks {scopes.scope_str}", {"WWW-Authenticate": challenge})
    return user


Reader = Annotated[User, Security(caller, scopes=["orders:read"])]
Writer = Annotated[User, Security(caller, scopes=["orders:write"])]


class Order(BaseModel):
    """An order as the upstream accepts it."""

    model_config = ConfigDict(extra="forbid")

    sku: str = Field(pattern=r"^[A-Z]{3}-[0-9]{4}$")
    quantity: int = Field(ge=1, le=100)


# The upstream does not need the credentials.
CREDENTIALS = {"authorization": None, "x-api-key": None}

# The gateway also serves the documentation, which describes what it checks.
app = FastAPI(title="Orders", docs_url="/orders/docs", openapi_url="/orders/openapi.json", redoc_url=None)


async def audit(user: str, order: Order) -> None:
    """Log an order that went upstream."""
    audit_log.info("%s orders %d of %s", user, order.quantity, order.sku)


@app.post("/orders")
async def create_order(order: Order, user: Writer, tasks: BackgroundTasks) -> PassOn:
    tasks.add_task(audit, user.name, order)  # runs after the gateway has its answer
    return PassOn(headers={"x-user": user.name, **CREDENTIALS})


@app.get("/orders")
@app.get("/orders/{order_id}")
async def read_orders(user: Reader, order_id: int | None = None) -> PassOn:
    return PassOn(headers={"x-user": user.name, **CREDENTIALS})


bridge = Bridge()
bridge.mount("orders", app)
