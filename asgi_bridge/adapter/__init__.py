"""Messages of the protocol as ASGI calls, and what the applications did as answers."""

from .call import Call, Host
from .exchange import Answer, Exchange
from .parking import ParkingLot
from .request import RequestCall
from .response import ResponseCall

__all__ = ["Answer", "Call", "Exchange", "Host", "ParkingLot", "RequestCall", "ResponseCall"]
