"""The protocol by the official ``flatbuffers`` package, and a strict verifier. Our codec is compared with both."""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
from flatbuffers import number_types as N
from flatbuffers.table import Table  # type: ignore[import-untyped]

from asgi_bridge.wire import (
    METHODS,
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    PrepareConfReq,
    PrepareConfResp,
    ReqBody,
    RespBody,
    Rewrite,
    Stop,
    TextEntry,
    UnknownUnion,
    Var,
)

# The schema: (attribute, kind) for each field. Kinds: u8 u16 u32 method code, string, octets, entries, union
SCHEMA: dict[type, tuple[tuple[str, str], ...]] = {
    ErrResp: (("code", "code"),),
    PrepareConfReq: (("conf", "entries"), ("key", "string")),
    PrepareConfResp: (("conf_token", "u32"),),
    HTTPReqCallReq: (
        ("id", "u32"),
        ("src_ip", "octets"),
        ("method", "method"),
        ("path", "string"),
        ("args", "entries"),
        ("headers", "entries"),
        ("conf_token", "u32"),
    ),
    HTTPReqCallResp: (("id", "u32"), ("action", "union")),
    Stop: (("status", "u16"), ("headers", "entries"), ("body", "octets")),
    Rewrite: (
        ("path", "string"),
        ("headers", "entries"),
        ("args", "entries"),
        ("resp_headers", "entries"),
        ("body", "octets"),
    ),
    ExtraInfoReq: (("info", "union"),),
    Var: (("name", "string"),),
    ReqBody: (),
    RespBody: (),
    ExtraInfoResp: (("result", "octets"),),
    HTTPRespCallReq: (("id", "u32"), ("status", "u16"), ("headers", "entries"), ("conf_token", "u32")),
    HTTPRespCallResp: (("id", "u32"), ("status", "u16"), ("headers", "entries"), ("body", "octets")),
}
UNIONS: dict[type, tuple[type, ...]] = {HTTPReqCallResp: (Stop, Rewrite), ExtraInfoReq: (Var, ReqBody, RespBody)}
SCALARS = {"u8": N.Uint8Flags, "u16": N.Uint16Flags, "u32": N.Uint32Flags, "method": N.Uint8Flags, "code": N.Uint8Flags}


# --- reading --------------------------------------------------------------------------------------------------------


def decode(kind: type, payload: bytes) -> Any:
    """Read a payload as a message of that kind."""
    return _decode_table(kind, Table(payload, flatbuffers.encode.Get(N.UOffsetTFlags.packer_type, payload, 0)))


def _decode_table(kind: type, table: Table) -> Any:
    values: list[Any] = []
    slot = 4
    for _, field in SCHEMA[kind]:
        at = table.Offset(slot)
        slot += 2
        if field == "union":
            member = table.Get(N.Uint8Flags, table.Pos + at) if at else 0
            at = table.Offset(slot)
            slot += 2
            values.append(_decode_union(UNIONS[kind], member, table, at))
        elif field in SCALARS:
            number = table.Get(SCALARS[field], table.Pos + at) if at else 0
            if field == "method":
                values.append(METHODS[number])
            elif field == "code" and number in list(ErrCode):
                values.append(ErrCode(number))
            else:
                values.append(number)
        elif not at:
            values.append(None)
        elif field == "string":
            values.append(table.String(table.Pos + at))
        elif field == "octets":
            start = table.Vector(at)
            values.append(bytes(table.Bytes[start : start + table.VectorLen(at)]))
        else:
            start = table.Vector(at)
            values.append(
                [_decode_entry(Table(table.Bytes, table.Indirect(start + 4 * n))) for n in range(table.VectorLen(at))]
            )
    return kind(*values)


def _decode_entry(table: Table) -> TextEntry:
    name, value = table.Offset(4), table.Offset(6)
    return (
        table.String(table.Pos + name) if name else None,
        table.String(table.Pos + value) if value else None,
    )


def _decode_union(members: tuple[type, ...], member: int, table: Table, at: int) -> Any:
    if not member:
        return None
    if member > len(members):
        return UnknownUnion(member)
    return _decode_table(members[member - 1], Table(table.Bytes, table.Indirect(table.Pos + at)))


# --- writing --------------------------------------------------------------------------------------------------------


def encode(message: Any, choose: Callable[[int], int] = lambda n: 0) -> bytes:
    """Write a message's payload.

    Args:
        message: The message.
        choose: Gives a number below its argument, for what a builder is free to do: defaults written or left out, the
            order of fields, equal strings shared or not.
    """
    builder = flatbuffers.Builder(64)
    builder.ForceDefaults(bool(choose(2)))
    builder.Finish(_encode_table(builder, message, choose))
    return bytes(builder.Output())


def _encode_table(builder: flatbuffers.Builder, message: Any, choose: Callable[[int], int]) -> int:
    kind = type(message)
    share = choose(4) == 3

    def string(text: bytes) -> int:
        # Our decoder refuses a buffer that shares long strings many times: test_codec has the limits.
        create = builder.CreateSharedString if share and len(text) < 16 else builder.CreateString
        at: int = create(text)
        return at

    steps: list[Callable[[], object]] = []
    slot = 0
    if kind is not UnknownUnion:
        for attribute, field in SCHEMA[kind]:
            value = getattr(message, attribute)
            if field == "union":
                if value is not None:
                    kinds = UNIONS[kind]
                    member = value.type if isinstance(value, UnknownUnion) else kinds.index(type(value)) + 1
                    at = _encode_table(builder, value, choose)
                    steps.append(partial(builder.PrependUint8Slot, slot, member, 0))
                    steps.append(partial(builder.PrependUOffsetTRelativeSlot, slot + 1, at, 0))
                slot += 2
                continue
            if field in SCALARS:
                number = METHODS.index(value) if field == "method" else int(value)
                put = {1: builder.PrependUint8Slot, 2: builder.PrependUint16Slot, 4: builder.PrependUint32Slot}
                steps.append(partial(put[SCALARS[field].bytewidth], slot, number, 0))
            elif value is not None:
                if field == "string":
                    at = string(value)
                elif field == "octets":
                    at = builder.CreateByteVector(value)
                else:
                    at = _encode_entries(builder, value, string, choose)
                steps.append(partial(builder.PrependUOffsetTRelativeSlot, slot, at, 0))
            slot += 1
    if steps and choose(2):
        turn = choose(len(steps))
        steps = steps[turn:] + steps[:turn]
    builder.StartObject(slot)
    for step in steps:
        step()
    root: int = builder.EndObject()
    return root


def _encode_entries(builder: Any, entries: list[TextEntry], string: Any, choose: Callable[[int], int]) -> int:
    order = (0, 1) if choose(2) else (1, 0)
    tables = []
    for entry in entries:
        strings = [None if text is None else string(text) for text in entry]
        builder.StartObject(2)
        for slot in order:
            at = strings[slot]
            if at is not None:
                builder.PrependUOffsetTRelativeSlot(slot, at, 0)
        tables.append(builder.EndObject())
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    vector: int = builder.EndVector()
    return vector


# --- verifying ------------------------------------------------------------------------------------------------------


def verify(kind: type, payload: bytes, *, nul: bool = True) -> None:
    """Check what strict verifiers check: alignment, a NUL after each string, all parts inside of the buffer."""
    assert len(payload) % 4 == 0
    _verify_table(kind, payload, _follow(payload, 0), nul)


def _follow(buf: bytes, at: int) -> int:
    assert at % 4 == 0 and at + 4 <= len(buf)
    (offset,) = struct.unpack_from("<I", buf, at)
    assert offset >= 4 and (at + offset) % 4 == 0
    followed: int = at + offset
    return followed


def _verify_fields(buf: bytes, table: int, widths: list[int]) -> list[int]:
    assert table % 4 == 0
    (back,) = struct.unpack_from("<i", buf, table)
    vtable = table - back
    assert 0 < vtable < len(buf) and vtable % 2 == 0
    vtable_size, table_size = struct.unpack_from("<HH", buf, vtable)
    assert vtable_size % 2 == 0 and vtable_size >= 4 and vtable + vtable_size <= len(buf)
    assert table_size >= 4 and table + table_size <= len(buf)
    slots = list(struct.unpack_from(f"<{(vtable_size - 4) // 2}H", buf, vtable + 4))
    assert len(slots) <= len(widths)
    slots += [0] * (len(widths) - len(slots))
    taken: set[int] = set()
    for slot, width in zip(slots, widths, strict=True):
        if slot:
            place = set(range(slot, slot + width))
            assert slot >= 4 and slot + width <= table_size and (table + slot) % width == 0
            assert not taken & place
            taken |= place
    return slots


def _verify_bytes(buf: bytes, field: int, *, nul: bool) -> None:
    at = _follow(buf, field)
    (length,) = struct.unpack_from("<I", buf, at)
    end = at + 4 + length
    assert end + nul <= len(buf)
    assert not nul or buf[end] == 0


def _verify_table(kind: type, buf: bytes, table: int, nul: bool) -> None:
    widths: list[int] = []
    kinds: list[str] = []
    for _, field in SCHEMA.get(kind, ()):
        widths += [1, 4] if field == "union" else [SCALARS[field].bytewidth] if field in SCALARS else [4]
        kinds += ["member", "union"] if field == "union" else [field]
    slots = _verify_fields(buf, table, widths)
    for number, (slot, field) in enumerate(zip(slots, kinds, strict=True)):
        at = table + slot
        if not slot:
            continue
        if field in ("string", "octets"):
            _verify_bytes(buf, at, nul=nul and field == "string")
        elif field == "union":
            member = buf[table + slots[number - 1]]
            members = UNIONS[kind]
            if member <= len(members):
                _verify_table(members[member - 1], buf, _follow(buf, at), nul)
        elif field == "entries":
            vector = _follow(buf, at)
            (count,) = struct.unpack_from("<I", buf, vector)
            for n in range(count):
                entry = _follow(buf, vector + 4 + 4 * n)
                for place in _verify_fields(buf, entry, [4, 4]):
                    if place:
                        _verify_bytes(buf, entry + place, nul=nul)
