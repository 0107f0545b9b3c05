"""What versions of APISIX lack."""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigurationError
from .findings import Finding, error, good, warning

__all__ = ["check_version", "found_version"]

FIRST = (2, 6)
"""The first version with external plugins."""
LACKS = (
    (
        (2, 9),
        "error",
        "the runner cannot ask it for variables and bodies, and it names no route: every var and receive fails",
        "install APISIX 3.6 or later",
    ),
    ((2, 12), "error", "the runner cannot ask it for request bodies", "install APISIX 3.6 or later"),
    (
        (3, 0),
        "error",
        "ext-plugin-post-resp gives no response bodies: plugins of the response phase and of both phases fail",
        "install APISIX 3.6 or later, or mount plugins with phase='request'",
    ),
    (
        (3, 2),
        "warning",
        "a content-type that a plugin sets on its response is replaced",
        "install APISIX 3.2 or later",
    ),
    ((3, 6), "warning", "a request body that a plugin changes is not sent upstream", "install APISIX 3.6 or later"),
)
"""Version up to which something is missing, how bad that is, what is missing, and what to do."""
FORWARDED = (3, 14)
"""The first version that does not pass on x-forwarded-* headers of clients."""
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-+.].*)?")
_FILES = ("apisix/core/version.lua", "deps/share/lua/5.1/apisix/core/version.lua")
"""Files that hold the version, in the folder of APISIX."""


def found_version(config: Path) -> str | None:
    """Return APISIX's version; None: it is not found.

    Args:
        config: Path of ``conf/config.yaml`` in the folder of APISIX.
    """
    for file in _FILES:
        try:
            text = (config.resolve().parent.parent / file).read_text("utf-8", "replace")
        except OSError:
            continue
        found = re.search(r'VERSION\s*=\s*"([^"]+)"', text)
        if found is not None:
            return found[1]
    return None


def check_version(version: str, asks_origin: bool) -> Iterator[Finding]:
    """Say what a version lacks.

    Args:
        version: Such as ``3.18.0``.
        asks_origin: The runner is started with ``--forwarded-headers ask``.

    Raises:
        ConfigurationError: That is no version.
    """
    read = _VERSION.fullmatch(version)
    if read is None:
        raise ConfigurationError(f"{version!r} is no version of APISIX; write it as 3.18.0")
    number = int(read[1]), int(read[2])
    where = f"APISIX {version}"
    if number < FIRST:
        yield error(where, "it has no external plugins", "install APISIX 3.6 or later")
        return
    lacking = False
    for until, severity, what, remedy in LACKS:
        if number < until:
            lacking = True
            yield (error if severity == "error" else warning)(where, what, remedy)
    if number < FORWARDED and not asks_origin:
        lacking = True
        yield warning(
            where,
            "clients may write the x-forwarded-* headers, from which plugins learn scheme and server",
            "start the runner with --forwarded-headers ask",
        )
    if not lacking:
        yield good(where, "it has all that the runner uses")
