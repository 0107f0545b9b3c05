"""The options of a mounted plugin, the same words in Python and in ``[tool.asgi_bridge.plugins.NAME]``."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import pydantic
from typing_extensions import TypedDict

from ..apisix_constants import RPC_SECONDS
from ..errors import ConfigurationError
from ..spelling import did_you_mean
from .allow import allow_entry

__all__ = ["REQUEST_HEADERS", "Options", "OptionsDict", "Phase", "parse_options"]

logger = logging.getLogger("asgi_bridge.plugins")

Phase: TypeAlias = Literal["auto", "request", "response", "both"]

REQUEST_HEADERS = (
    "accept", "accept-encoding", "authorization", "cookie", "host", "if-match", "if-none-match", "if-modified-since",
    "origin", "range", "referer", "user-agent", "x-request-id", "traceparent",
)  # fmt: skip
"""What most middleware wants of a request, when it sees the response."""

_is_root_path = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+").fullmatch  # nothing that needs escaping


@dataclass(frozen=True, slots=True)
class Options:
    """How a plugin is run.

    Attributes:
        phase: ``"request"`` (to be listed in ``ext-plugin-pre-req`` or ``-post-req``), ``"response"``
            (``ext-plugin-post-resp``), ``"auto"`` (either, and it runs in the form of that phase), or ``"both"``: it is
            listed in both, and runs once, around the real upstream.
        exact: its scope has the raw path and query, the HTTP version, the server and the client's port as they
            were; costs one round trip a call.
        request_body: False: although it wraps ``receive``, it does not change the request body, so the body need
            not be fetched and compared. It can still read the body.
        response_body: False: although it wraps ``send``, it does not want the upstream's body, and must not change it.
        request_headers: names of the request headers that it sees in the response phase, where nothing of the
            request arrives and each is asked for.
        on_error: ``"open"``: a fault of this plugin itself, before it passed the request on, is passed over.
        on_missing: with phase "both", when the request half is gone: ``"rerun"`` the response form, or ``"refuse"``.
        cures: with the answers that APISIX would spoil (empty error bodies, HEAD) send what keeps them whole.
        timeout: seconds from the plugin's call to its answer; at most 60, since APISIX waits no longer. A plugin that
            blocks the event loop cannot be cut off.
        allow: files and servers that a route may name: ``"/etc/apisix/keys/"`` (that file or folder, and what is in
            it), ``"https://idp.example.com/keys"`` (that scheme, host and port, that path and what is beneath it),
            ``"redis://10.0.0.5:6379"``. It counts for the fields that the plugin marks with
            :class:`~asgi_bridge.plugins.Allowed`.
        allow_patterns: True: a route may give the plugin regular expressions of Python's.
        share: one application for all routes that configure it equally, kept as long as the process runs: for one that
            can be built once only (a metric registered in ``__init__``). Without it each route has its own.
        root_path: the path under which clients know this plugin, where something in front has taken it off: as
            uvicorn's ``--root-path`` it is ``scope["root_path"]``, and stands before ``path`` and ``raw_path``. It is
            taken off again where the plugin passes the request on.
    """

    phase: Phase = "auto"
    exact: bool = False
    request_body: bool = True
    response_body: bool = True
    request_headers: tuple[str, ...] = REQUEST_HEADERS
    on_error: Literal["closed", "open"] = "closed"
    on_missing: Literal["rerun", "refuse"] = "rerun"
    cures: bool = True
    timeout: float = 30.0
    allow: tuple[str, ...] = ()
    allow_patterns: bool = False
    share: bool = False
    root_path: str = ""


def _root_path(text: str) -> str:
    if text and not _is_root_path(text):
        raise ValueError('it looks like "/api": a slash first and none last, and nothing that a URL would escape')
    return text


class OptionsDict(TypedDict, total=False):
    """The same, as keyword arguments."""

    phase: Phase
    exact: bool
    request_body: bool
    response_body: bool
    request_headers: Sequence[Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9-]+$", to_lower=True)]]
    on_error: Literal["closed", "open"]
    on_missing: Literal["rerun", "refuse"]
    cures: bool
    timeout: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
    allow: Sequence[Annotated[str, pydantic.AfterValidator(allow_entry)]]
    allow_patterns: bool
    share: bool
    root_path: Annotated[str, pydantic.AfterValidator(_root_path)]


_options: pydantic.TypeAdapter[OptionsDict] = pydantic.TypeAdapter(OptionsDict)


def parse_options(given: dict[str, Any], name: str = "?") -> Options:
    """`given` as options.

    Args:
        given: option names and values.
        name: of the plugin, for the log.

    Raises:
        ConfigurationError: an option does not exist, or cannot have this value.
    """
    try:
        checked: dict[str, Any] = {**_options.validate_python(given, strict=True, extra="forbid")}
    except pydantic.ValidationError as exc:
        reasons = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"
            + (
                did_you_mean(str(error["loc"][0]), OptionsDict.__annotations__)
                if error["type"] == "extra_forbidden"
                else ""
            )
            for error in exc.errors(include_url=False)
        )
        raise ConfigurationError(f"option {reasons}") from None
    for word in ("request_headers", "allow"):
        if word in checked:
            checked[word] = tuple(checked[word])
    options = Options(**checked)
    if options.timeout > RPC_SECONDS:
        logger.warning(
            "plugin %s: its option timeout is %g s, but APISIX gives up after %g s and answers 503: lower the timeout",
            name, options.timeout, RPC_SECONDS,
        )  # fmt: skip
    return options
