"""Put the compiled parts of calls in the places of the pure ones."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from starlette.types import Message

from ..compiled import twin
from ..errors import PluginError
from ..plugins import Chain
from ..wire import HTTPReqCallReq
from .call import Call, Host
from .connection import Connection
from .request import RequestCall

__all__ = ["new_request_call", "send_in_python", "var_in_python"]

new_request_call: Callable[[HTTPReqCallReq, Chain, Connection, Host], RequestCall] = RequestCall
"""Makes a :class:`RequestCall`, with the same arguments."""

send_in_python, var_in_python = Call.send, Call.var
"""The methods as pure Python has them."""


@wraps(send_in_python)
async def _send(call: Call, message: Message) -> None:
    if not _compiled.take(call, message):
        await send_in_python(call, message)


@wraps(var_in_python)
async def _var(call: Call, *names: str) -> Any:
    future = _compiled.ask(call, names)
    if future is None:
        return await var_in_python(call, *names)
    try:
        values = await future
    except PluginError as exc:
        call._note(exc)  # it is the method of the pure twin
        raise
    if "request_id" in names:
        call.note_request_id(values[names.index("request_id")])
    return dict(zip(names, values, strict=True)) if len(names) > 1 else values[0]


_compiled: Any = twin("adapter._request_call")
if _compiled is not None:
    Call.send = _send  # type: ignore[method-assign, assignment]
    Call.var = _var  # type: ignore[method-assign]
    RequestCall._begin = _compiled.begin  # type: ignore[method-assign]
    RequestCall.innermost = _compiled.innermost  # type: ignore[method-assign]
    new_request_call = _compiled.new_request_call
