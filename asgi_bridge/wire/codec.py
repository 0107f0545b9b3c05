"""Choose the codec. This is the one place that names its implementations.

`decode` and `encode` here are those of the first codec in `CODECS`. All other code takes them from here, or from
`asgi_bridge.wire`. The tests of the wire run on every codec in the list.
"""

from typing import Any, NamedTuple, Protocol

from ..compiled import twin
from .decode import decode as decode_in_python
from .encode import encode as encode_in_python
from .messages import HTTPReqCallReq, Message, Role

__all__ = ["CODECS", "Codec", "decode", "encode"]


class Decode(Protocol):
    """The type of a codec's `decode`. `wire/decode.py` says what it must do."""

    def __call__(self, frame_type: int, payload: bytes, role: Role) -> Message: ...


class Encode(Protocol):
    """The type of a codec's `encode`. `wire/encode.py` says what it must do."""

    def __call__(self, message: Message) -> bytes: ...


class Codec(NamedTuple):
    """An implementation of the codec.

    Attributes:
        name: Name of the implementation, for test reports.
        decode: Turns the payload of a frame into a message.
        encode: Turns a message into a frame.
    """

    name: str
    decode: Decode
    encode: Encode


_decoder, _encoder = twin("wire._decode"), twin("wire._encode")

CODECS: tuple[Codec, ...] = (Codec("python", decode_in_python, encode_in_python),)
"""All implementations on this machine. The first one is used."""
if _decoder is not None and _encoder is not None:
    _unread: Any = twin("wire._unread")
    HTTPReqCallReq.args = property(_unread.get_args, _unread.set_args, _unread.delete_args)  # type: ignore[assignment, misc]
    CODECS = (Codec("compiled", _decoder.decode, _encoder.encode), *CODECS)

decode = CODECS[0].decode
encode = CODECS[0].encode
