"""``limit-count``: lets a number of requests of each client pass in a time, and answers 429 to the rest.

The options are named as those of APISIX's own plugin of this name. ``window`` chooses between two ways to count:

- ``fixed``: the time begins with a client's first request, and the count begins anew when the time is over.
- ``sliding``: the time ends now, at each moment. The requests that lie further back than the last whole window count in
  part, as if they had been spread evenly.

A request that is refused does not count. Each answer tells the client where it stands: ``X-RateLimit-Limit``,
``-Remaining`` and ``-Reset`` (seconds until the window ends). A refusal has ``Retry-After``, too.

``key`` says who is counted together: the name of a variable of nginx or APISIX, such as ``remote_addr`` or
``consumer_name``. ``remote_addr`` and ``http_NAME`` cost no round trip to the gateway, and ``http_NAME`` is the header
as the plugins before this one have left it. So ``http_x_consumer`` counts the consumers of a ``key-auth`` with
``consumer_header``. A header that no such plugin sets is the client's to choose. If the variable is empty, the address
of the client counts in its place. An address is a weak limit: a client with IPv6 has many, and each is counted by
itself, while the people behind one router share one. Where clients have keys, count those.

The counts of a route are in the memory of the runner, for all of its workers, and for the clients of the last time.
With ``redis`` they are in Redis, and all gateways that name the same Redis share them. The operator says which Redis a
route may name (``allow``). When Redis does not answer, the mount's ``on_error`` decides whether the request is refused
or skips this plugin.

The package ``limits`` does not fit: in Redis it counts a sliding window in several steps, and a refused request counts
in a fixed one.
"""

import hashlib
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import PluginError, apisix, upstream
from asgi_bridge.plugins import Allowed
from asgi_bridge.plugins.numbers_by_name import numbers_by_name

from ._shared.conf import Conf, Status, Text
from ._shared.headers import Headers, dashed
from ._shared.windows import MAX_COUNT, Counter, Kind, SharedCounter, Taken, Window

__all__ = ["LimitCountConf", "limit_count"]

MAX_VARIABLES = 16
"""Maximum number of variables in a key."""

_variable = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def _refusing(status: int) -> int:
    if status < 400:
        raise ValueError("a refusal has a status of 400 or higher")
    return status


class LimitCountConf(Conf):
    """What ``limit-count`` takes."""

    count: int = Field(ge=1, le=MAX_COUNT, description="Requests that may pass in the window.", examples=[2])
    time_window: float = Field(ge=0.001, le=2**26, description="Length of the window, in seconds.", examples=[60])
    window: Kind = Field(
        default="fixed",
        description="`fixed`: the count begins anew when the window is over. `sliding`: the window ends now, at each "
        "moment.",
    )
    key: str = Field(
        default="remote_addr",
        min_length=1,
        max_length=1024,
        description="Who is counted together: requests with the same value of this variable.",
    )
    key_type: Literal["var", "var_combination", "constant"] = Field(
        default="var",
        description="`var`: key is the name of a variable. `var_combination`: key is a text with variables, such as "
        "`$remote_addr $http_x_team`. `constant`: all requests are counted together.",
    )
    rejected_code: Annotated[Status, AfterValidator(_refusing)] = Field(
        default=429, description="Status of a refusal. APISIX's own plugin has 503."
    )
    rejected_msg: Text = Field(default="Too many requests\n", description="Body of a refusal.")
    show_limit_quota_header: bool = Field(
        default=True, description="False: answers have no X-RateLimit headers, and refusals no Retry-After."
    )
    redis: Annotated[SecretStr, Field(max_length=4096), Allowed("redis", "rediss")] | None = Field(
        default=None,
        description="URL (redis:// or rediss://) of the Redis that holds the counts; the operator allows it. Left "
        "out: the runner has its own.",
    )
    redis_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Name of the counts in Redis: routes of the same name share them. Left out: the route's id.",
    )

    @property
    def variables(self) -> list[str]:
        """The names of all variables in the key."""
        if self.key_type == "constant":
            return []
        return [self.key] if self.key_type == "var" else [one or other for one, other in _variable.findall(self.key)]

    @model_validator(mode="after")
    def _has_variables(self) -> "LimitCountConf":
        names = self.variables
        if self.key_type != "constant" and not (names and all(re.fullmatch(r"\w+", name) for name in names)):
            raise ValueError("key names a variable, without $; with key_type var_combination it has one with $")
        if len(names) > MAX_VARIABLES:
            raise ValueError(f"key has at most {MAX_VARIABLES} variables")
        return self


def limit_count(
    conf: LimitCountConf,
    clock: Callable[[], float] = time.monotonic,
    shared_clock: Callable[[], float] | None = None,
) -> ASGIApp:
    """Refuse requests beyond the count.

    Args:
        conf: The route's configuration.
        clock: Returns monotonic seconds.
        shared_clock: Returns seconds, for counts in Redis; None uses the clock of Redis.

    Raises:
        ConfigurationError: redis-py refuses the URL, or is not installed.
    """
    window = Window(conf.count, conf.time_window, conf.window)
    counter = Counter(window, numbers_by_name(), clock)
    shared = None
    if conf.redis is not None:
        shared = SharedCounter(conf.redis.get_secret_value(), window, shared_clock)
    named = _named(conf)

    async def limit(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await upstream(scope, receive, send)
            if shared is not None:
                await shared.close()
            return
        # a digest, because a value may be long, or a secret
        digest = hashlib.blake2b(await named(scope), digest_size=16)
        if shared is None:
            taken = counter.take(digest.digest())
        else:
            taken = await shared.take(f"{_bucket(conf, scope)}:{digest.hexdigest()}")
        headers = _headers(conf, taken) if conf.show_limit_quota_header else []
        if not taken.passed:
            refusal = PlainTextResponse(conf.rejected_msg, conf.rejected_code)
            refusal.raw_headers += headers
            await refusal(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await upstream(scope, receive, send_with_headers if headers else send)

    return limit


def _headers(conf: LimitCountConf, taken: Taken) -> Headers:
    """Return the headers that tell the client where it stands."""
    told = {
        b"x-ratelimit-limit": conf.count,
        b"x-ratelimit-remaining": taken.remaining,
        b"x-ratelimit-reset": math.ceil(taken.reset),
    }
    if not taken.passed:
        told[b"retry-after"] = max(math.ceil(taken.wait), 1)
    return [(name, b"%d" % value) for name, value in told.items()]


def _named(conf: LimitCountConf) -> Callable[[Scope], Awaitable[bytes]]:
    """Return a function that says under which name a request counts."""
    names = list(dict.fromkeys(conf.variables))
    asked = [name for name in names if name != "remote_addr" and not name.startswith("http_")]

    async def named(scope: Scope) -> bytes:
        values = {name: _known(scope, name) for name in names if name not in asked}
        if asked:
            answers = await apisix(scope).var("remote_addr", *asked)  # of two names or more it is a dict
            values |= {name: answers[name] or b"" for name in asked}
        if not any(values.values()):
            return b"\0" + _known(scope, "remote_addr")
        if conf.key_type == "var":
            return values[names[0]]
        # each value with its length, so that no value can pretend to be two
        return b"".join(b"%d:%b" % (len(value), value) for value in values.values())

    async def constant(scope: Scope) -> bytes:
        return b""

    return named if names else constant


def _known(scope: Scope, name: str) -> bytes:
    """Return a variable that the request itself tells: ``remote_addr``, or a header as ``http_NAME``."""
    if name == "remote_addr":
        client = scope.get("client")
        return client[0].encode() if client else b""
    header = dashed(name.removeprefix("http_").lower().encode())
    return b", ".join(value for key, value in scope["headers"] if dashed(key.lower()) == header)


def _bucket(conf: LimitCountConf, scope: Scope) -> str:
    """Return the name of the route's counts in Redis."""
    name = conf.redis_key or apisix(scope).route_id
    if name is None:
        raise PluginError("the gateway does not say which route this is: set redis_key")
    return name
