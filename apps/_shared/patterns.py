"""Regular expressions that a route gives: RE2's, as in Go. No text can make one run away, as it can Python's own."""

from typing import Annotated, Any

import re2  # type: ignore[import-untyped]
from pydantic import AfterValidator, Field

from asgi_bridge.plugins import SafePattern

__all__ = ["MAX_PROGRAM", "Pattern"]

MAX_LENGTH = 512
"""Characters of a regular expression."""
MAX_BYTES = 2**20
"""Bytes that a compiled regular expression, and what it remembers while it searches, may take."""
MAX_PROGRAM = 2000
"""Instructions of a compiled regular expression: the steps that one byte of a text can cost."""

_LACKING = {
    "invalid perl operator": "RE2 has no look-around such as (?=a), no (?P=name), (?>a), (?(1)a) or (?#a), and no "
    "flags but imsU",
    "invalid escape sequence": r"RE2 has no back-references such as \1, and no \Z (write \z), \h or \u0041 (write "
    r"\x41)",
    "bad repetition operator": "RE2 has no possessive repetition such as a++",
    "invalid repetition size": "RE2 repeats 1000 times at most",
}
"""What a pattern that is good for Python, or for PCRE, may have and RE2 does not."""

_options = re2.Options()
_options.log_errors = False
_options.max_mem = MAX_BYTES


def _compiled(pattern: str) -> Any:
    try:
        found = re2.compile(pattern.encode(), _options)
    except re2.error as exc:
        (reason,) = exc.args
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        # behind the colon stands a part of the pattern
        fault = text.partition(": ")[0]
        lacking = f" ({_LACKING[fault]})" if fault in _LACKING else ""
        raise ValueError(f"no regular expression of RE2: {fault}{lacking}") from None
    except UnicodeEncodeError:
        raise ValueError("no regular expression of RE2: half a surrogate pair") from None
    if found.programsize > MAX_PROGRAM:
        raise ValueError(f"a regular expression of {found.programsize} instructions; {MAX_PROGRAM} may be")
    return found


Pattern = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(_compiled), SafePattern()]
"""A regular expression, compiled for bytes."""
