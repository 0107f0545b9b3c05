"""The options of a mounted plugin, the same words in Python and in ``[tool.asgi_bridge.plugins.NAME]``."""

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import pydantic
from typing_extensions import TypedDict

from ..apisix_constants import RPC_SECONDS
from ..errors import ConfigurationError
from ..spelling import did_you_mean
from .allow import allow_entry

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["REQUEST_HEADERS", "Options", "OptionsDict", "Phase", "parse_options"]

logger = logging.getLogger("asgi_bridge.plugins")

Phase: TypeAlias = Literal["auto", "request", "response", "both"]

REQUEST_HEADERS = ("host", "accept-encoding", "authorization", "cookie", "origin")
"""Request headers that a plugin of the response phase gets, unless its mount names others.

Each costs the gateway and the runner some microseconds. These tell which response a client can take, and whether it is
for this client alone: a plugin that saw no ``authorization`` or ``cookie`` would take a private response for a public
one."""

_is_root_path = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+").fullmatch  # no character that needs escaping


@dataclass(frozen=True, slots=True)
class Options:
    """How a plugin is run.

    Attributes:
        phase: The lists of a route that the plugin is for. ``"request"``: ``ext-plugin-pre-req`` or ``-post-req``.
            ``"response"``: ``ext-plugin-post-resp``. ``"auto"``: any of these, and it runs in that list's phase.
            ``"both"``: it is listed in both phases, and runs once, around the real upstream.
        exact: True: the scope has the raw path and query, the HTTP version, the server and the client's port as the
            client sent them. That costs one round trip a call. In the response phase the server and the client's port
            depend on it.
        request_body: False: the plugin does not change the request body, although it wraps ``receive``. So the body
            need not be fetched and compared. The plugin can still read it.
        response_body: False: the plugin does not read the upstream's body, although it wraps ``send``. It must not
            change the body.
        request_headers: Names of the request headers that the plugin sees in the response phase. There no part of the
            request arrives by itself, and each header is asked for. Default: what the plugin is known to need
            (:mod:`~asgi_bridge.plugins.needs`), otherwise ``REQUEST_HEADERS``.
        on_error: ``"open"``: if the plugin itself fails before it passed the request on, the request goes on without
            it. ``"closed"``: the request is refused.
        on_missing: With phase "both", when the request half is gone: ``"rerun"`` the plugin in the response phase, or
            ``"refuse"`` the request.
        cures: True: answers that APISIX would spoil (empty error bodies, HEAD) are sent with what keeps them whole.
        timeout: Seconds from the plugin's call to its answer; at most 60, since APISIX waits no longer. A plugin that
            blocks the event loop cannot be cut off.
        allow: Files and servers that a route may name. ``"/etc/apisix/keys/"``: that file or folder, and all in it.
            ``"https://idp.example.com/keys"``: that scheme, host and port, that path and all beneath it.
            ``"redis://10.0.0.5:6379"``: that server. It applies to the fields that the plugin marks with
            :class:`~asgi_bridge.plugins.Allowed`.
        allow_patterns: True: a route may give the plugin regular expressions for Python's ``re``.
        share: True: all routes that configure the plugin equally share one application, which is kept as long as the
            process runs. For an application that can be built only once (a metric registered in ``__init__``).
            False: each route has its own.
        root_path: The path under which clients know this plugin, where a proxy has removed it. As with uvicorn's
            ``--root-path`` it is ``scope["root_path"]``, and stands before ``path`` and ``raw_path``. It is removed
            again where the plugin passes the request on.
        shadow: True: the plugin runs beside the request, on copies. What it would have done is logged and counted, and
            the request goes on as if the plugin were not listed. Not with phase "both", and not with `exact`.
        sample: Share of the requests that a plugin with `shadow` runs on, over 0 and up to 1.
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
    shadow: bool = False
    sample: float = 1.0


def _root_path(text: str) -> str:
    if text and not _is_root_path(text):
        raise ValueError('it looks like "/api": a slash first and none last, and nothing that a URL would escape')
    return text


class OptionsDict(TypedDict, total=False):
    """The options of :class:`Options` as keyword arguments."""

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
    shadow: bool
    sample: Annotated[float, pydantic.Field(gt=0, le=1)]


@functools.cache
def _adapter() -> "pydantic.TypeAdapter[OptionsDict]":
    return pydantic.TypeAdapter(OptionsDict)


def parse_options(values: dict[str, Any], name: str = "?") -> Options:
    """Check options.

    Args:
        values: Names and values of the options.
        name: Name of the plugin, for the log.

    Raises:
        ConfigurationError: An option does not exist, or cannot have this value.
    """
    if not values:
        return Options()
    try:
        checked: dict[str, Any] = {**_adapter().validate_python(values, strict=True, extra="forbid")}
    except pydantic.ValidationError as exc:
        reasons = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {_in_words(error)}" for error in exc.errors(include_url=False)
        )
        raise ConfigurationError(f"option {reasons}") from None
    for word in ("request_headers", "allow"):
        if word in checked:
            checked[word] = tuple(checked[word])
    _check_shadow(checked)
    options = Options(**checked)
    if options.timeout > RPC_SECONDS:
        logger.warning(
            "plugin %s: its option timeout is %g s, but APISIX gives up after %g s and answers 503: lower the timeout",
            name, options.timeout, RPC_SECONDS,
        )  # fmt: skip
    return options


def _in_words(error: "ErrorDetails") -> str:
    """Return what is wrong about an option, and what to write."""
    match error["type"]:
        case "extra_forbidden":
            known = OptionsDict.__annotations__
            guess = did_you_mean(str(error["loc"][0]), known) or f"; there are {', '.join(known)}"
            return f"there is no such option{guess}"
        case "sequence_str":
            return f"it is a list of strings, such as [{error['input']!r}]"
        case "string_pattern_mismatch":
            return f"{error['input']!r} is no name of a header: those have letters, digits and hyphens"
    return error["msg"].removeprefix("Value error, ")


def _check_shadow(checked: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if the options do not go together with `shadow`, or need it."""
    if not checked.get("shadow"):
        if "sample" in checked:
            raise ConfigurationError("option sample: it is the share of requests of a shadow: add shadow=True")
        return
    if checked.get("phase") == "both":
        raise ConfigurationError(
            "option shadow: a plugin of phase 'both' waits for the response inside of the request, which a shadow "
            "cannot: mount it with phase='request' or phase='response', or with phase='auto' and list it in both"
        )
    if checked.get("exact"):
        raise ConfigurationError(
            "option shadow: exact=True asks the gateway before the plugins of the route run, and all of them would see "
            "other values: remove exact=True"
        )
