"""The floor: the least that a server of this protocol costs in Python. It reads frames and writes canned answers.

``python -m benchmarks.floor SOCKET [asyncio|uvloop]``
"""

import asyncio
import sys
from pathlib import Path
from typing import cast

FRAMES = Path(__file__).parent / "frames"
PREPARED = (FRAMES / "pc_resp.bin").read_bytes()
STOPPED = (FRAMES / "stop_resp.bin").read_bytes()


class Canned:
    """Base class: splits the bytes into frames and answers each."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transport is no subclass
        self.rest = b""

    def take(self, data: bytes) -> None:
        data = self.rest + data
        start = 0
        while len(data) - start >= 4:
            end = start + 4 + int.from_bytes(data[start + 1 : start + 4], "big")
            if end > len(data):
                break
            self.transport.write(PREPARED if data[start] == 1 else STOPPED)
            start = end
        self.rest = data[start:]


class Plain(Canned, asyncio.Protocol):
    """Protocol that is faster on uvloop."""

    def data_received(self, data: bytes) -> None:
        self.take(data)


class Buffered(Canned, asyncio.BufferedProtocol):
    """Protocol that is faster on asyncio, which allocates 256 KiB for each read of a plain one."""

    def __init__(self) -> None:
        self.buffer = bytearray(16 * 1024)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.take(bytes(self.buffer[:nbytes]))


async def serve(path: str, protocol: type[Plain] | type[Buffered]) -> None:
    server = await asyncio.get_running_loop().create_unix_server(protocol, path)
    await server.serve_forever()


def run(plain: type[Plain], buffered: type[Buffered]) -> None:
    """Serve, as the command line says."""
    path, loop = sys.argv[1], sys.argv[2]
    if loop == "uvloop":
        import uvloop

        uvloop.run(serve(path, plain))
    else:
        asyncio.run(serve(path, buffered))


if __name__ == "__main__":
    run(Plain, Buffered)
