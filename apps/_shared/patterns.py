"""Regular expressions in routes, of RE2 as in Go. Unlike with Python's ``re``, no text can make a search run away."""

from typing import Annotated, Any

import re2  # type: ignore[import-untyped]
from pydantic import AfterValidator, Field

from asgi_bridge.plugins import SafePattern

__all__ = ["MAX_PROGRAM", "Pattern"]

MAX_LENGTH = 512
"""Maximum length of a regular expression, in characters."""
MAX_BYTES = 2**20
"""Maximum memory of a compiled regular expression and of its search, in bytes."""
MAX_PROGRAM = 2000
"""Maximum number of instructions of a compiled regular expression. One byte of text costs at most so many steps."""

_LACKING = {
    "invalid perl operator": "RE2 has no look-around such as (?=a), no (?P=name), (?>a), (?(1)a) or (?#a), and no "
    "flags but imsU",
    "invalid escape sequence": r"RE2 has no back-references such as \1, and no \Z (write \z), \h or \u0041 (write "
    r"\x41)",
    "bad repetition operator": "RE2 has no possessive repetition such as a++",
    "invalid repetition size": "RE2 repeats 1000 times at most",
}
"""RE2's error → what Python or PCRE has and RE2 lacks, for people who write a pattern for those."""

_options = re2.Options()
_options.log_errors = False
_options.max_mem = MAX_BYTES


def _compiled(pattern: str) -> Any:
    try:
        found = re2.compile(pattern.encode(), _options)
    except re2.error as exc:
        (reason,) = exc.args
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        # after the colon comes a part of the pattern, which may be secret
        fault = text.partition(": ")[0]
        lacking = f" ({_LACKING[fault]})" if fault in _LACKING else ""
        raise ValueError(f"not a regular expression of RE2: {fault}{lacking}") from None
    except UnicodeEncodeError:
        raise ValueError("not a regular expression of RE2: it contains an unpaired surrogate") from None
    if found.programsize > MAX_PROGRAM:
        raise ValueError(
            f"the regular expression compiles to {found.programsize} instructions; {MAX_PROGRAM} are allowed"
        )
    return found


Pattern = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(_compiled), SafePattern()]
"""A regular expression, compiled to search bytes."""
