"""Make messages from arbitrary bytes. Ten thousands are drawn quickly, and hypothesis shrinks them with the bytes."""

from collections.abc import Callable
from typing import Any

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

_TEXT = bytes(range(256)) * 3


class Source:
    """Give numbers made from bytes, and zeros after the last byte."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def byte(self) -> int:
        return next(self._bytes, 0)

    def below(self, n: int) -> int:
        return self.byte() % n

    def number(self, bits: int) -> int:
        match self.below(4):
            case 0:
                return 0
            case 1:
                return (1 << bits) - 1
            case 2:
                return self.byte()
            case _:
                return (self.byte() << (bits - 8) | self.byte()) % (1 << bits)

    def octets(self) -> bytes:
        size = self.byte()
        start = self.byte()
        if size < 224:
            size &= 31
        elif size > 250:
            size += 100  # longer than any string with a prepared struct
        return _TEXT[start : start + size]

    def maybe_octets(self) -> bytes | None:
        return self.octets() if self.below(4) else None

    def entry(self) -> TextEntry:
        match self.below(12):
            case 1:
                return None, self.octets()
            case 2 | 3:
                return self.octets(), None
            case 4:
                return None, None
            case _:
                return self.octets(), self.octets()

    def entries(self) -> list[TextEntry] | None:
        count = self.below(64)
        if count < 8:
            return None
        if count == 63:
            # more entries than any prepared struct has; their content is that of an exhausted source
            return [self.entry() for _ in range(4)] * 15 + [self.entry() for _ in range(self.below(10))]
        return [self.entry() for _ in range((count - 8) % 6)]


MESSAGES: dict[type, Callable[[Source], Any]] = {
    ErrResp: lambda s: ErrResp(ErrCode(code) if (code := s.byte()) < 3 else code),
    PrepareConfReq: lambda s: PrepareConfReq(s.entries(), s.maybe_octets()),
    PrepareConfResp: lambda s: PrepareConfResp(s.number(32)),
    HTTPReqCallReq: lambda s: HTTPReqCallReq(
        s.number(32),
        s.maybe_octets(),
        METHODS[s.below(len(METHODS))],
        s.maybe_octets(),
        s.entries(),
        s.entries(),
        s.number(32),
    ),
    HTTPReqCallResp: lambda s: HTTPReqCallResp(s.number(32), _action(s)),
    ExtraInfoReq: lambda s: ExtraInfoReq(_info(s)),
    ExtraInfoResp: lambda s: ExtraInfoResp(s.maybe_octets()),
    HTTPRespCallReq: lambda s: HTTPRespCallReq(s.number(32), s.number(16), s.entries(), s.number(32)),
    HTTPRespCallResp: lambda s: HTTPRespCallResp(s.number(32), s.number(16), s.entries(), s.maybe_octets()),
}


def _action(s: Source) -> Any:
    match s.below(8):
        case 0:
            return None
        case 1:
            return UnknownUnion(3 + s.below(253))
        case 2 | 3 | 4:
            return Stop(s.number(16), s.entries(), s.maybe_octets())
        case _:
            return Rewrite(s.maybe_octets(), s.entries(), s.entries(), s.entries(), s.maybe_octets())


def _info(s: Source) -> Any:
    match s.below(8):
        case 0:
            return None
        case 1:
            return UnknownUnion(4 + s.below(252))
        case 2:
            return ReqBody()
        case 3:
            return RespBody()
        case _:
            return Var(s.maybe_octets())
