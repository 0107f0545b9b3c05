"""The recorded cases: what a real APISIX 3.18.0 did with a probing runner, one JSON object a case.

Texts that came over a wire are latin-1, one character a byte. Long things are cut:
``{"cut": true, "len", "sha256", "head_hex" or "head_b64"}``.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["UPSTREAM_SCRIPT", "load_cases"]

_DATA = Path(__file__).parents[1] / "data"

UPSTREAM_SCRIPT = _DATA / "apisix-cases-upstream.py"
"""The upstream of all cases; runs alone: ``python3 apisix-cases-upstream.py PORT``."""


@cache
def load_cases() -> list[dict[str, Any]]:
    """Read all cases. They are read once: do not change them."""
    cases: list[dict[str, Any]] = []
    for name in ("apisix-cases.jsonl.gz", "apisix-cases-2.jsonl.gz"):
        with gzip.open(_DATA / name, "rt", encoding="utf-8") as lines:
            cases += [json.loads(line) for line in lines]
    return cases
