"""Encode rare messages with the official flatbuffers package.

These are errors, and what only the gateway sends. The package is slow, which does not matter here: the runner sends
the known errors from constants, and the gateway is the stand-in for development and tests.

Each function takes a message and returns its frame, as `asgi_bridge.wire.encode` does. It raises LocalProtocolError for
a message that no frame can hold.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from ..errors import LocalProtocolError
from .frames import MAX_PAYLOAD, FrameType, frame, too_long
from .messages import (
    LAST_ACTION,
    METHODS,
    ErrCode,
    ErrResp,
    HTTPReqCallReq,
    HTTPRespCallReq,
    PrepareConfReq,
    TextEntry,
    UnknownUnion,
)

if TYPE_CHECKING:
    from flatbuffers import Builder  # type: ignore[import-untyped]

__all__ = [
    "encode_err_resp",
    "encode_http_req_call_req",
    "encode_http_resp_call_req",
    "encode_prepare_conf_req",
    "encode_unknown_action",
]


def _builder(size: int) -> "Builder":
    """Begin a buffer. The package is imported at the first use: most runners need none, and it imports numpy too."""
    from flatbuffers import Builder

    return Builder(size)


def _framed(builder: "Builder", frame_type: FrameType, root: int) -> bytes:
    """Finish the buffer and put a frame's header before it."""
    builder.Finish(root)
    payload = cast("bytearray", builder.Output())
    if len(payload) > MAX_PAYLOAD:
        raise too_long(len(payload))
    return frame(frame_type, bytes(payload))


def _check(value: int, bits: int) -> int:
    """Check that a number has at most so many bits, and return it.

    The builder raises AssertionError or TypeError for such a number, which differs between its versions.
    """
    if not 0 <= value < 1 << bits:
        raise LocalProtocolError(f"{value} does not fit into {bits} bits")
    return value


def _build_string(builder: "Builder", string: bytes | None) -> int | None:
    if string is None:
        return None
    if len(string) > MAX_PAYLOAD:  # before it is copied
        raise too_long(len(string))
    return cast("int", builder.CreateString(string))


def _build_octets(builder: "Builder", octets: bytes | None) -> int | None:
    if octets is None:
        return None
    if len(octets) > MAX_PAYLOAD:
        raise too_long(len(octets))
    return cast("int", builder.CreateByteVector(octets))


def _build_entries(builder: "Builder", entries: Sequence[TextEntry] | None) -> int | None:
    if entries is None:
        return None
    # The builder has no limit of its own. Refuse what is too long before it copies all of it.
    size = sum(len(name or b"") + len(value or b"") for name, value in entries)
    if size > MAX_PAYLOAD:
        raise too_long(size)
    tables = []
    for name, value in entries:
        strings = (_build_string(builder, name), _build_string(builder, value))
        tables.append(_build_table(builder, strings))
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return cast("int", builder.EndVector())


def _build_table(builder: "Builder", references: Sequence[int | None]) -> int:
    """Build a table whose fields are all references to what the builder has written before."""
    builder.StartObject(len(references))
    for number, reference in enumerate(references):
        if reference is not None:
            builder.PrependUOffsetTRelativeSlot(number, reference, 0)
    return cast("int", builder.EndObject())


def encode_unknown_action(number: int, action: UnknownUnion) -> bytes:
    """Encode an answer to a request call with an action that the protocol does not have, for tests.

    Args:
        number: Number of the call, 32 bits.
        action: The action. Its table has no fields.
    """
    if not LAST_ACTION < action.type <= 255:
        raise LocalProtocolError(f"{action.type} is not the type of an unknown action ({LAST_ACTION + 1} to 255)")
    builder = _builder(64)
    table = _build_table(builder, ())
    builder.StartObject(3)
    builder.PrependUint32Slot(0, _check(number, 32), 0)
    builder.PrependUint8Slot(1, action.type, 0)
    builder.PrependUOffsetTRelativeSlot(2, table, 0)
    return _framed(builder, FrameType.HTTP_REQ_CALL, builder.EndObject())


def encode_err_resp(message: ErrResp) -> bytes:
    """Encode an error. Frames of the known errors are constants."""
    found = _ERRORS.get(message.code)
    return _build_err_resp(message.code) if found is None else found


def _build_err_resp(code: int) -> bytes:
    builder = _builder(32)
    builder.StartObject(1)
    builder.PrependUint8Slot(0, _check(code, 8), 0)
    return _framed(builder, FrameType.ERROR, builder.EndObject())


_ERRORS: dict[int, bytes] = {
    ErrCode.BAD_REQUEST: bytes.fromhex("0000000c 08000000 04000400 04000000"),
    ErrCode.SERVICE_UNAVAILABLE: bytes.fromhex("00000014 0c000000 00000600 08000700 06000000 00000001"),
    ErrCode.CONF_TOKEN_NOT_FOUND: bytes.fromhex("00000014 0c000000 00000600 08000700 06000000 00000002"),
}
"""Frames of the known errors. They are constants, because refusing a call must be cheap."""


def encode_prepare_conf_req(message: PrepareConfReq) -> bytes:
    """Encode a preparation, which the gateway sends."""
    builder = _builder(1024)
    references = (_build_entries(builder, message.conf), _build_string(builder, message.key))
    return _framed(builder, FrameType.PREPARE_CONF, _build_table(builder, references))


def encode_http_req_call_req(message: HTTPReqCallReq) -> bytes:
    """Encode a request call, which the gateway sends."""
    if message.method not in METHODS:
        raise LocalProtocolError(f"the protocol has no method {message.method!r}")
    builder = _builder(1024)
    src_ip = _build_octets(builder, message.src_ip)
    path = _build_string(builder, message.path)
    args = _build_entries(builder, message.args)
    headers = _build_entries(builder, message.headers)
    builder.StartObject(7)
    builder.PrependUint32Slot(0, _check(message.id, 32), 0)
    for number, reference in (1, src_ip), (3, path), (4, args), (5, headers):
        if reference is not None:
            builder.PrependUOffsetTRelativeSlot(number, reference, 0)
    builder.PrependUint8Slot(2, METHODS.index(message.method), 0)
    builder.PrependUint32Slot(6, _check(message.conf_token, 32), 0)
    return _framed(builder, FrameType.HTTP_REQ_CALL, builder.EndObject())


def encode_http_resp_call_req(message: HTTPRespCallReq) -> bytes:
    """Encode a response call, which the gateway sends."""
    builder = _builder(1024)
    headers = _build_entries(builder, message.headers)
    builder.StartObject(4)
    builder.PrependUint32Slot(0, _check(message.id, 32), 0)
    builder.PrependUint16Slot(1, _check(message.status, 16), 0)
    if headers is not None:
        builder.PrependUOffsetTRelativeSlot(2, headers, 0)
    builder.PrependUint32Slot(3, _check(message.conf_token, 32), 0)
    return _framed(builder, FrameType.HTTP_RESP_CALL, builder.EndObject())
