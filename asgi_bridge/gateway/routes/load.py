"""Loads routes: from APISIX's standalone ``apisix.yaml``, or another form in which people keep them.

Every error names its line of the file. Strictly, as in tests, what APISIX refuses is an error, and so is what the
stand-in cannot do. Otherwise, as in ``asgi-bridge dev``, both are findings: a route that APISIX drops is dropped here
too, and what the stand-in cannot do is ignored.
"""

from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from .environment import replace_in_values
from .forms import translated
from .places import Place, Report
from .reader import Reader
from .route import Routes
from .text import END, read_text

__all__ = ["load_routes", "parse_routes", "read_routes"]


def load_routes(path: str | Path, *, strict: bool = True) -> Routes:
    """Read a route file.

    Args:
        path: The file: an ``apisix.yaml`` or ``apisix.json``, JSON of the Admin API, ADC's YAML, or resources of the
            ingress controller for Kubernetes. What is in it tells which.
        strict: True: what APISIX refuses, and what the stand-in cannot do, is an error. False: it is kept in
            `Routes.findings`. Routes that APISIX drops are left out, the rest is ignored.

    Raises:
        ConfigurationError: The file cannot be read, or something in it is wrong.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path}: the route file cannot be read: {exc}") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigurationError(
            f"{path}:{line}: the route file cannot be read: it is not UTF-8; save it as UTF-8"
        ) from None
    return parse_routes(text, str(path), strict=strict)


def parse_routes(text: str, file: str = "apisix.yaml", *, strict: bool = True) -> Routes:
    """Read routes from the text of a route file.

    Args:
        text: YAML that ends with ``#END``, or another form; see `load_routes`.
        file: The file's name, for messages.
        strict: See `load_routes`.

    Raises:
        ConfigurationError: Something in it is wrong. The message says what, where, and what to do.
    """
    try:
        return _parsed(text, file, Report(strict))
    except RecursionError:
        raise ConfigurationError(f"{file}: lists and mappings are nested too deeply") from None


def _parsed(text: str, file: str, report: Report) -> Routes:
    if not text.strip():
        raise ConfigurationError(f"{file}: the file is empty; one without routes has at least the line {END}")
    found = read_text(text, file)
    top = Place(file)
    data: Any = translated(found.documents, top, report)
    if data is None:
        data = found.documents[0] if found.documents else {}
        if not found.ended and not found.json:
            raise ConfigurationError(
                f"{file}: the last line has to be {END}; APISIX does not read a file without it "
                "(it may be half written)"
            )
        if not found.ended:
            # an apisix.json
            data = replace_in_values(data, file)
    for line, key, first in found.twice:
        if report.strict:
            raise ConfigurationError(f"{file}:{line}: {key!r} is there twice; the first is on line {first}")
        report.remark(
            Place(file, line=line), f"{key!r} is there twice; APISIX uses this one, not the one on line {first}"
        )
    return Reader(data, top, report, null_is_table=not found.json).read()


def read_routes(data: Any, file: str = "routes", *, strict: bool = True) -> Routes:
    """Read routes from the values of a route file.

    Args:
        data: A mapping with the sections of an ``apisix.yaml``.
        file: A name for messages.
        strict: See `load_routes`.

    Raises:
        ConfigurationError: Something in it is wrong.

    Example:
        >>> read_routes({"routes": [{"uri": "/*", "upstream": {"nodes": {"127.0.0.1:8000": 1}}}]})
    """
    return Reader(data, Place(file), Report(strict)).read()
