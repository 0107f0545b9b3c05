"""The limits of APISIX 3.18's schema (``apisix/schema_def.lua``), for the fields that the stand-in reads.

APISIX drops an entry that breaks one of them, with a line in its log, and reads the others. A check gets a value and
its place, and raises `Misplaced`.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .places import Place, named, shown

__all__ = [
    "CERTIFICATE",
    "CONSUMER",
    "EXT_PLUGIN",
    "GLOBAL_RULE",
    "KEY",
    "META",
    "PLUGIN_CONFIG",
    "REQUIRED",
    "ROUTE",
    "SERVICE",
    "TEXT",
    "UPSTREAM",
    "check_fields",
    "is_reference",
]

Check: TypeAlias = Callable[[Any, Place], None]

_SECRET = re.compile(r"\$secret://|\$env://", re.IGNORECASE)
_HOST = r"\*|\*?[0-9a-zA-Z\-._\[\]:]+"


def is_reference(value: Any) -> bool:
    """The value is taken from elsewhere when a request comes, so its length and form are not known."""
    return isinstance(value, str) and _SECRET.match(value) is not None


def _string(low: int = 0, high: int | None = None, pattern: str = "", rule: str = "") -> Check:
    compiled = re.compile(pattern, re.ASCII) if pattern else None

    def check(value: Any, place: Place) -> None:
        if not isinstance(value, str):
            raise place.wrong(f"this has to be a string, not {named(value)}; put it in quotes")
        if is_reference(value):
            return
        if len(value) < low:
            raise place.wrong(
                "this is empty; APISIX takes one character at least"
                if not value
                else f"this has {len(value)} characters; APISIX takes {low} at least"
            )
        if high is not None and len(value) > high:
            raise place.wrong(f"this has {len(value)} characters; APISIX takes {high} at most")
        if compiled is not None and not compiled.fullmatch(value):
            raise place.wrong(f"{shown(value)} {rule}")

    return check


def _integer(low: int | None = None, high: int | None = None) -> Check:
    def check(value: Any, place: Place) -> None:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole:
            raise place.wrong(f"this has to be a number, not {named(value)}")
        _bounds(value, place, low, high)

    return check


def _number(low: float | None = None, *, above: float | None = None) -> Check:
    def check(value: Any, place: Place) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise place.wrong(f"this has to be a number, not {named(value)}")
        _bounds(value, place, low, None)
        if above is not None and not value > above:
            raise place.wrong(f"this has to be a number over {above:g}, not {shown(value)}")

    return check


def _bounds(value: float, place: Place, low: float | None, high: float | None) -> None:
    if low is not None and value < low:
        raise place.wrong(f"this has to be a number from {low:g}, not {shown(value)}")
    if high is not None and value > high:
        raise place.wrong(f"this has to be a number up to {high:g}, not {shown(value)}")


def _seconds(value: Any, place: Place) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise place.wrong(f"this has to be a number of seconds, not {named(value)}")


def _boolean(value: Any, place: Place) -> None:
    if not isinstance(value, bool):
        raise place.wrong(f"this has to be true or false, not {named(value)}")


def _one_of(*words: Any) -> Check:
    def check(value: Any, place: Place) -> None:
        if isinstance(value, bool) or value not in words:
            raise place.wrong(f"this is {', '.join(map(str, words[:-1]))} or {words[-1]}, not {shown(value)}")

    return check


def _list(entry: Check | None = None, *, low: int = 0, unique: bool = False, of: str = "") -> Check:
    what = f"this has to be a list{of}"

    def check(value: Any, place: Place) -> None:
        value = [] if value is None else value  # nothing is an empty table there
        if not isinstance(value, list | tuple):
            raise place.wrong(f"{what}, not {named(value)}")
        if len(value) < low:
            raise place.wrong(f"{what}, with one at least")
        before: set[Any] = set()
        for number, each in enumerate(value):
            if entry is not None:
                entry(each, place.at(value, number))
            if unique and each in before:
                raise place.at(value, number).wrong(f"{shown(each)} stands here twice; APISIX takes it once only")
            if unique:
                before.add(each)

    return check


def _mapping(table: Mapping[str, Check] | None = None, *required: str, every: Check | None = None) -> Check:
    def check(value: Any, place: Place) -> None:
        value = {} if value is None else value  # nothing is an empty table there
        if not isinstance(value, Mapping):
            raise place.wrong(f"this has to be a mapping, not {named(value)}")
        check_fields(value, table or {}, place)
        missing = [name for name in required if name not in value]
        if missing:
            raise place.wrong(f"APISIX wants {' and '.join(missing)} here too")
        if every is not None:
            for key, each in value.items():
                every(each, place.at(value, key))

    return check


def _id(value: Any, place: Place) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise place.wrong(f"an id is a string or a number, not {named(value)}")
    if isinstance(value, int) and value < 1:
        raise place.wrong(f"an id that is a number begins at 1, so not {value}")
    if isinstance(value, str) and not re.fullmatch(r"[a-zA-Z0-9\-_.]{1,64}", value):
        raise place.wrong(f"{shown(value)} is no id: it has 1 to 64 of letters, digits, - _ and .")


def _address(value: Any, place: Place) -> None:
    try:
        if not isinstance(value, str):
            raise ValueError
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise place.wrong(f"this has to be an IP address, or one with /BITS, not {named(value)}") from None


def check_fields(value: Mapping[Any, Any], table: Mapping[str, Check], place: Place) -> None:
    """Check the fields of a mapping that it has and that `table` names.

    Raises:
        Misplaced: a field breaks a limit.
    """
    for key, check in table.items():
        if key in value:
            check(value[key], place.at(value, key))


_NAME = _string(1, 256)
_STRINGS = " of strings"
_HOST_RULE = "has to be a name without a port, * only at its beginning; it has letters, digits, - _ and ."
_HOST_NAME = _string(0, None, _HOST, _HOST_RULE)
_LABEL = _string(1, 256, r"\S+", "is no label: it has no spaces")
_TIMEOUT = _mapping({"connect": _seconds, "send": _seconds, "read": _seconds}, "connect", "send", "read")
_COMMON: Mapping[str, Check] = {
    "id": _id,
    "name": _NAME,
    "desc": _string(0, 256),
    "labels": _mapping(every=_LABEL),
    "create_time": _integer(),
    "update_time": _integer(),
}
_PLUGINS: Mapping[str, Check] = {"plugins": _mapping()}
_HOSTS = _list(_HOST_NAME, low=1, unique=True, of=_STRINGS)
_METHOD_NAMES = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE")


def _method(value: Any, place: Place) -> None:
    if value not in _METHOD_NAMES:
        raise place.wrong(f"APISIX does not know {value}; methods are upper case: {', '.join(_METHOD_NAMES)}")


def _status(value: Any, place: Place) -> None:
    if isinstance(value, bool) or value not in (0, 1):
        raise place.wrong(f"this has to be 1, or 0 to switch the route off, not {named(value)}")


ROUTE: Mapping[str, Check] = {
    **_COMMON,
    **_PLUGINS,
    "uri": _string(1, 4096),
    "uris": _list(_string(), low=1, unique=True, of=_STRINGS),
    "priority": _integer(),
    "methods": _list(_method, unique=True, of=_STRINGS),
    "host": _HOST_NAME,
    "hosts": _HOSTS,
    "remote_addr": _address,
    "remote_addrs": _list(_address, low=1, unique=True, of=_STRINGS),
    "timeout": _TIMEOUT,
    "vars": _list(),
    "filter_func": _string(10, None, r"function[\s\S]*", "has to begin with function"),
    "script": _string(10, 102400),
    "script_id": _id,
    "plugin_config_id": _id,
    "service_id": _id,
    "upstream_id": _id,
    "enable_websocket": _boolean,
    "status": _status,
}
SERVICE: Mapping[str, Check] = {
    **_COMMON,
    **_PLUGINS,
    "upstream_id": _id,
    "script": _string(10, 102400),
    "enable_websocket": _boolean,
    "hosts": _HOSTS,
}
CONSUMER: Mapping[str, Check] = {
    **{name: check for name, check in _COMMON.items() if name != "name"},
    **_PLUGINS,
    "username": _string(1, 256, r"[a-zA-Z0-9_\-]+", "is no username: it has letters, digits, _ and -"),
    "group_id": _id,
}
PLUGIN_CONFIG: Mapping[str, Check] = {**_COMMON, **_PLUGINS, "name": _string()}
GLOBAL_RULE: Mapping[str, Check] = {
    "id": _id,
    "plugins": _mapping(),
    "create_time": _integer(),
    "update_time": _integer(),
}

_STATUSES = _list(_integer(200, 599), low=1, unique=True)


def _health(low: int, *counters: str, interval: bool) -> Check:
    table: dict[str, Check] = {"http_statuses": _STATUSES, **{name: _integer(low, 254) for name in counters}}
    return _mapping({**table, "interval": _integer(1)} if interval else table)


_CHECK_TYPE = _one_of("http", "https", "tcp")
_FAILURES = ("http_failures", "tcp_failures", "timeouts")
_CHECKS = _mapping(
    {
        "active": _mapping(
            {
                "type": _CHECK_TYPE,
                "timeout": _number(),
                "concurrency": _integer(),
                "host": _HOST_NAME,
                "port": _integer(1, 65535),
                "http_method": _method,
                "http_path": _string(),
                "http_req_body": _string(),
                "https_verify_certificate": _boolean,
                "healthy": _health(1, "successes", interval=True),
                "unhealthy": _health(1, *_FAILURES, interval=True),
                "req_headers": _list(_string(), low=1, of=_STRINGS),
            }
        ),
        "passive": _mapping(
            {
                "type": _CHECK_TYPE,
                "healthy": _health(0, "successes", interval=False),
                "unhealthy": _health(0, *_FAILURES, interval=False),
            }
        ),
    },
    "active",
)
CERTIFICATE = _string(128, 64 * 1024)
KEY = _string(64, 64 * 1024)
TEXT = _string()
_TLS_FIELDS = _mapping(
    {
        "client_cert_id": _id,
        "client_cert": CERTIFICATE,
        "client_key": KEY,
        "verify": _boolean,
    }
)


def _tls(value: Any, place: Place) -> None:
    _TLS_FIELDS(value, place)
    if ("client_cert" in value) != ("client_key" in value):
        raise place.wrong("client_cert and client_key belong together; give both")
    if "client_cert_id" in value and "client_cert" in value:
        raise place.wrong("it has client_cert_id and client_cert; keep one of them")


def _nodes(value: Any, place: Place) -> None:
    if isinstance(value, Mapping):
        for name, weight in value.items():
            _weight(weight, place.at(value, name))
    else:
        _NODE_LIST(value, place)


def _weight(value: Any, place: Place) -> None:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 0:
        raise place.wrong(f"a weight is a number from 0, not {shown(value)}")


_NODE_LIST = _list(
    _mapping(
        {
            "host": _HOST_NAME,
            "port": _integer(1, 65535),
            "weight": _weight,
            "priority": _integer(),
            "metadata": _mapping(),
        },
        "host",
        "weight",
    )
)
UPSTREAM: Mapping[str, Check] = {
    **_COMMON,
    "nodes": _nodes,
    "retries": _integer(0),
    "retry_timeout": _number(0),
    "timeout": _TIMEOUT,
    "tls": _tls,
    "keepalive_pool": _mapping({"size": _integer(1), "idle_timeout": _number(0), "requests": _integer(1)}),
    "type": _string(),
    "checks": _CHECKS,
    "hash_on": _one_of("vars", "header", "cookie", "consumer", "vars_combinations"),
    "key": _string(),
    "scheme": _one_of("grpc", "grpcs", "http", "https", "tcp", "tls", "udp", "kafka"),
    "discovery_type": _string(),
    "discovery_args": _mapping({"namespace_id": _string(), "group_name": _string()}),
    "pass_host": _one_of("pass", "node", "rewrite"),
    "upstream_host": _HOST_NAME,
    "service_name": _string(1, 256),
}


def _error_response(value: Any, place: Place) -> None:
    if not isinstance(value, str | Mapping):
        raise place.wrong(f"this has to be a string or a mapping, not {named(value)}")


META: Mapping[str, Check] = {
    "disable": _boolean,
    "error_response": _error_response,
    "priority": _integer(),
    "filter": _list(),
    "pre_function": _string(),
}
"""``_meta``, which every plugin may have."""


def _plugin_name(value: Any, place: Place) -> None:
    _string()(value, place)
    if not 1 <= len(value) <= 128:
        raise place.wrong("a plugin's name has 1 to 128 characters")


def _configuration(value: Any, place: Place) -> None:
    if isinstance(value, Mapping | list):
        raise place.wrong("this has to be a string that holds JSON, so put the JSON in single quotes")
    _string()(value, place)


def _conf(value: Any, place: Place) -> None:
    _list()(value, place)
    if not value:
        raise place.wrong("the list is empty; name a plugin, or take conf out")
    for number, each in enumerate(value):
        spot = place.at(value, number)
        _mapping()(each, spot)
        each = {} if each is None else each
        for field, example in (("name", "the plugin's name"), ("value", "its configuration: '{}' where there is none")):
            if field not in each:
                raise spot.wrong(f"it has no {field}, which APISIX wants; give {example}")
        check_fields(each, {"name": _plugin_name, "value": _configuration}, spot)


EXT_PLUGIN: Mapping[str, Check] = {"conf": _conf, "allow_degradation": _boolean}
"""``ext-plugin-pre-req`` and its two brothers."""

REQUIRED: Sequence[str] = ("plugins", "upstream", "upstream_id", "service_id", "script")
"""A route has one of these at least."""
