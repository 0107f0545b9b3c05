"""The recorded cases: what a real APISIX 3.18.0 did with a probing runner, one JSON object a case.

Texts that came over a wire are latin-1, one character a byte. Bodies are base64, frames are hex. Long ones are cut:
``{"cut": true, "len", "sha256", "head_hex" or "head_b64"}``.
"""

import base64
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["UPSTREAM_SCRIPT", "latin1", "load_cases", "unbase64", "unhex"]

_DATA = Path(__file__).parents[1] / "data"

UPSTREAM_SCRIPT = _DATA / "apisix-cases-upstream.py"
"""Path of the upstream of all cases. It runs alone too: ``python3 apisix-cases-upstream.py PORT``."""


@cache
def load_cases() -> list[dict[str, Any]]:
    """Read all cases. They are read once: do not change them."""
    cases: list[dict[str, Any]] = []
    for name in ("apisix-cases.jsonl.gz", "apisix-cases-2.jsonl.gz"):
        with gzip.open(_DATA / name, "rt", encoding="utf-8") as lines:
            cases += [json.loads(line) for line in lines]
    return cases


def latin1(text: str | None) -> bytes | None:
    """Return the bytes of a text that came over a wire."""
    return None if text is None else text.encode("latin-1")


def unbase64(text: str | None) -> bytes | None:
    """Return the bytes of a body that is not cut."""
    return None if text is None else base64.b64decode(text)


def unhex(frame: Any) -> bytes | None:
    """Return the bytes of a frame. None: the record has none, or has cut it."""
    return bytes.fromhex(frame) if isinstance(frame, str) else None
