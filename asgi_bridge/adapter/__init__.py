"""Messages of the protocol as ASGI calls, and what the applications did as answers."""

from .about import MAX_PATH
from .call import Call, Host
from .connection import Answer, Connection
from .parked_calls import ParkedCalls
from .request import RequestCall
from .response import ResponseCall
from .scope import first_variables
from .twins import new_request_call

__all__ = [
    "MAX_PATH",
    "Answer",
    "Call",
    "Connection",
    "Host",
    "ParkedCalls",
    "RequestCall",
    "ResponseCall",
    "first_variables",
    "new_request_call",
]
