"""Recorded frames, and ways to damage them."""

import random
import struct

from asgi_bridge.wire import HEADER_SIZE, Role
from tests.replay.cases import load_cases

__all__ = ["RECORDED", "damaged"]


def recorded_frames() -> list[tuple[int, bytes, Role]]:
    """Return recorded frames of each shape: one for each role, type and hundred bytes of length."""
    found: dict[tuple[int, Role, int], bytes] = {}
    for case in load_cases():
        for rpc in case["rpcs"]:
            frames = [(rpc["frame_in_hex"], Role.RUNNER), (rpc["frame_out_hex"], Role.GATEWAY)]
            for step in rpc["frames_extra_hex"]:
                frames.append((step["hex"], Role.GATEWAY if step["way"] == "out" else Role.RUNNER))
            for text, role in frames:
                if isinstance(text, str) and len(text) > 2 * HEADER_SIZE:
                    data = bytes.fromhex(text)
                    found.setdefault((data[0], role, len(data) // 100), data[HEADER_SIZE:])
    return [(frame_type, payload, role) for (frame_type, role, _), payload in found.items()]


RECORDED = recorded_frames()


def damaged(payload: bytes, chance: random.Random) -> bytes:
    """Return `payload` with one to three faults."""
    data = bytearray(payload)
    for _ in range(chance.randrange(1, 4)):
        match chance.randrange(5):
            case 0 if data:  # flip a bit
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 1 if data:  # change a byte
                data[chance.randrange(len(data))] = chance.choice((0, 1, 4, 127, 128, 255))
            case 2 if len(data) >= 4:  # change a word
                at = chance.randrange(len(data) // 4) * 4
                word = chance.choice((0, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data), len(data) - at))
                struct.pack_into("<I", data, at, word & 0xFFFFFFFF)
            case 3:
                del data[chance.randrange(len(data) + 1) :]
            case _:
                at = chance.randrange(len(data) + 1)
                data[at:at] = chance.randbytes(chance.randrange(1, 64))
    return bytes(data)
