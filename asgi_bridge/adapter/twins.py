"""Put the compiled parts of calls in the places of the pure ones."""

from collections.abc import Callable
from typing import Any

from ..compiled import twin
from ..plugins import Chain
from ..plugins.twins import mark_async
from ..wire import HTTPReqCallReq
from .call import Call, Host
from .connection import Connection
from .request import RequestCall

__all__ = ["new_request_call", "send_in_python", "var_in_python"]

new_request_call: Callable[[HTTPReqCallReq, Chain, Connection, Host], RequestCall] = RequestCall
"""Makes a :class:`RequestCall`, with the same arguments."""

send_in_python, var_in_python = Call.send, Call.var
"""The methods as pure Python has them."""

_compiled: Any = twin("adapter._request_call")
_asking: Any = twin("adapter._asking")
if _compiled is not None and _asking is not None:
    Call.send = mark_async(_compiled.send)  # type: ignore[method-assign]
    Call.var = mark_async(_asking.var)  # type: ignore[method-assign]
    Call.wraps_send = _compiled.wraps_send  # type: ignore[method-assign]
    RequestCall._begin = _compiled.begin  # type: ignore[method-assign]
    RequestCall.innermost = _compiled.innermost  # type: ignore[method-assign]
    new_request_call = _compiled.new_request_call
