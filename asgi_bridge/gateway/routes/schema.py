"""What may be in a route file: a model for each object, with the limits of APISIX 3.18 (``apisix/schema_def.lua``).

APISIX drops an entry that breaks a limit, with a line in its log, and reads the others. `checking` puts
what is wrong into words.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, Self, TypeAlias

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, Tag, WrapValidator
from typing_extensions import TypedDict

from ...spelling import did_you_mean
from .checking import wrong
from .route import Network

__all__ = [
    "NOT_DONE", "READ", "SECTIONS", "Certificate", "Consumer", "ExtPlugin", "GlobalRule", "KeyAuth", "Meta",
    "PluginConfig", "Route", "Service", "Tls", "Upstream", "is_reference",
]  # fmt: skip

READ = ("consumers", "global_rules", "plugin_configs", "routes", "services", "upstreams")
"""The sections of an ``apisix.yaml`` that the stand-in reads. Each of them is a list."""
SECTIONS = (
    *READ, "ssls", "stream_routes", "plugin_metadata", "protos", "consumer_groups", "secrets", "plugins", "credentials",
)  # fmt: skip
"""All sections of an ``apisix.yaml``."""
NOT_DONE = {
    "filter_func": "the stand-in runs no Lua, so it asks no filter_func",
    "script": "the stand-in does not know this field: it runs no Lua",
    "script_id": "the stand-in does not know this field: it runs no Lua",
    "group_id": "the stand-in has no consumer groups, so their plugins do not run",
}
"""Fields of entries that the stand-in ignores, and why."""

_REFERENCE = re.compile(r"\$secret://|\$env://", re.IGNORECASE)


def is_reference(value: Any) -> bool:
    """Return whether a value is a reference, which APISIX replaces when a request comes. No limit holds for it."""
    return isinstance(value, str) and _REFERENCE.match(value) is not None


# --- values ---------------------------------------------------------------------------------------------------------


class _Null:
    """Stands for the null of a field. Only tables may be null; to other fields this is a value of the wrong type."""


_NULL = _Null()


def _or_else(text: str) -> WrapValidator:
    """Say `text` about a refused value, whatever the reason."""

    def check(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except pydantic.ValidationError:
            raise wrong(text) from None

    return WrapValidator(check)


def _pattern(pattern: str, text: str) -> AfterValidator:
    """Refuse a string that does not match the whole pattern, and say `text` about it."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise wrong(text)
        return value

    return AfterValidator(check)


def _string(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, str):
        return handler(value)
    if not is_reference(value):
        # JSON can write half a character ("\ud800"), which pydantic refuses
        handler(value.encode("utf-8", "replace").decode())
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _id(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else value


def _network(value: Any) -> Network:
    if not isinstance(value, str):
        raise ValueError
    return ipaddress.ip_network(value, strict=False)


def _no_table(value: Any) -> Any:
    if isinstance(value, Mapping | list):
        raise wrong("this has to be a string that holds JSON, so put the JSON in single quotes")
    return value


def _unique(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
    result = handler(value)
    before: set[Any] = set()
    for number, each in enumerate(value):
        if each in before:
            raise wrong("{shown} is here twice; APISIX accepts it only once", number)
        before.add(each)
    return result


_STRING = WrapValidator(_string)
_WHOLE = BeforeValidator(_whole)
_UNIQUE = WrapValidator(_unique)
_TABLE = BeforeValidator(lambda value: {} if value is None or value is _NULL else value)
_LIST = BeforeValidator(lambda value: [] if value is _NULL else list(value) if isinstance(value, tuple) else value)
_SLASH = _pattern(r"/[\s\S]*", "{shown} has to begin with a slash, as the path of every request does")
_HOST_RULE = "{shown} has to be a name without a port, of letters, digits, - _ and ., with * only at its beginning"

String = Annotated[str, _STRING]
Name = Annotated[str, Field(min_length=1, max_length=256), _STRING]
Description = Annotated[str, Field(max_length=256), _STRING]
Script = Annotated[str, Field(min_length=10, max_length=102400), _STRING]
Function = Annotated[
    str, Field(min_length=10), _pattern(r"function[\s\S]*", "{shown} has to begin with function"), _STRING
]
Label = Annotated[
    str, Field(min_length=1, max_length=256), _pattern(r"\S+", "{shown} is not a label: labels have no spaces"), _STRING
]
Username = Annotated[
    str,
    Field(min_length=1, max_length=256),
    _pattern(r"[a-zA-Z0-9_\-]+", "{shown} is not a username: usernames have letters, digits, _ and -"),
    _STRING,
]
Id = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z0-9\-_.]{1,64}$"),
    BeforeValidator(_id),
    _or_else("{named} is not an id: ids are numbers from 1, or have 1 to 64 letters, digits, - _ and ."),
]
Host = Annotated[str, _pattern(r"\*|\*?[0-9a-zA-Z\-._\[\]:]+", _HOST_RULE), _STRING]
RouteHost = Annotated[String, _pattern(r"\*|\*?[0-9a-zA-Z\-._\[\]]+|\[[0-9a-zA-Z\-._\[\]:]*", _HOST_RULE)]
Address = Annotated[
    Network, PlainValidator(_network), _or_else("this has to be an IP address, or one with /BITS, not {named}")
]
Method = Literal["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"]
Pem = Annotated[str, Field(min_length=128, max_length=64 * 1024), _STRING]
PemKey = Annotated[str, Field(min_length=64, max_length=64 * 1024), _STRING]
Whole = Annotated[int, _WHOLE]
FromZero = Annotated[int, Field(ge=0), _WHOLE]
FromOne = Annotated[int, Field(ge=1), _WHOLE]
Port = Annotated[int, Field(ge=1, le=65535), _WHOLE]
Seconds = Annotated[float, Field(gt=0), _or_else("this has to be a number of seconds over 0, not {named}")]
Anything = Annotated[dict[Any, Any], _TABLE]
Hosts = Annotated[list[RouteHost], Field(min_length=1), _UNIQUE, _LIST]


# --- objects --------------------------------------------------------------------------------------------------------


class _Table(pydantic.BaseModel):
    """An object of a route file. APISIX ignores the fields of it that it does not know."""

    model_config = pydantic.ConfigDict(strict=True)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _nulls(cls, value: Any) -> Any:
        if value is None or value is _NULL:
            return {}
        if isinstance(value, Mapping):
            return {key: _NULL if each is None else each for key, each in value.items()}
        return value


class _Closed(_Table):
    """An object in which APISIX allows no other fields."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        names = sorted(cls.model_fields.keys() - NOT_DONE.keys())
        for key in value if isinstance(value, Mapping) else ():
            if key not in cls.model_fields:
                raise wrong(
                    f"APISIX does not know this field{did_you_mean(str(key), names) or '; take it out.'} "
                    f"There are {', '.join(names)}",
                    key,
                )
        return value


class _Entry(_Closed):
    id: Id | None = None
    desc: Description | None = None
    labels: Annotated[dict[Any, Label], _TABLE] | None = None
    create_time: Whole | None = None
    update_time: Whole | None = None


class Timeout(TypedDict):
    """``timeout`` of a route or an upstream."""

    connect: Seconds
    send: Seconds
    read: Seconds


class ListedPlugin(_Table):
    """One of the runner's plugins."""

    name: Annotated[str, Field(min_length=1, max_length=128), _STRING]
    value: Annotated[String, BeforeValidator(_no_table)]


class ExtPlugin(_Table):
    """``ext-plugin-pre-req``, ``ext-plugin-post-req`` and ``ext-plugin-post-resp``."""

    conf: Annotated[list[ListedPlugin], Field(min_length=1), _LIST] | None = None
    allow_degradation: bool = False


class Meta(_Closed):
    """``_meta``, which every plugin may have."""

    disable: bool = False
    error_response: (
        Annotated[String | dict[Any, Any], _or_else("this has to be a string or a mapping, not {named}")] | None
    ) = None
    priority: Whole | None = None
    filter: Annotated[list[Any], _LIST] | None = None
    pre_function: String | None = None


class KeyAuth(_Table):
    """``key-auth`` of a consumer."""

    key: String


_Statuses: TypeAlias = Annotated[
    list[Annotated[int, Field(ge=200, le=599), _WHOLE]], Field(min_length=1), _UNIQUE, _LIST
]
_Count: TypeAlias = Annotated[int, Field(ge=0, le=254), _WHOLE]
_Counted: TypeAlias = Annotated[int, Field(ge=1, le=254), _WHOLE]


class _PassiveHealthy(TypedDict, total=False):
    http_statuses: _Statuses
    successes: _Count


class _PassiveUnhealthy(TypedDict, total=False):
    http_statuses: _Statuses
    http_failures: _Count
    tcp_failures: _Count
    timeouts: _Count


class _ActiveHealthy(TypedDict, total=False):
    interval: FromOne
    http_statuses: _Statuses
    successes: _Counted


class _ActiveUnhealthy(TypedDict, total=False):
    interval: FromOne
    http_statuses: _Statuses
    http_failures: _Counted
    tcp_failures: _Counted
    timeouts: _Counted


class _Check(TypedDict, total=False):
    type: Literal["http", "https", "tcp"]


class _ActiveCheck(_Check, total=False):
    timeout: float
    concurrency: Whole
    host: Host
    port: Port
    http_method: Method
    http_path: String
    http_req_body: String
    https_verify_certificate: bool
    healthy: Annotated[_ActiveHealthy, _TABLE]
    unhealthy: Annotated[_ActiveUnhealthy, _TABLE]
    req_headers: Annotated[list[String], Field(min_length=1), _LIST]


class _PassiveCheck(_Check, total=False):
    healthy: Annotated[_PassiveHealthy, _TABLE]
    unhealthy: Annotated[_PassiveUnhealthy, _TABLE]


class _Checks(TypedDict):
    active: Annotated[_ActiveCheck, _TABLE]
    passive: NotRequired[Annotated[_PassiveCheck, _TABLE]]


class Certificate(_Table):
    """A client certificate of section ``ssls``."""

    id: Id
    cert: Pem
    key: PemKey


class Tls(_Table):
    """``tls`` of an upstream."""

    client_cert_id: Id | None = None
    client_cert: Pem | None = None
    client_key: PemKey | None = None
    verify: bool = False

    @pydantic.model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.client_cert is None) != (self.client_key is None):
            raise wrong("client_cert and client_key belong together; give both")
        if self.client_cert_id is not None and self.client_cert is not None:
            raise wrong("it has client_cert_id and client_cert; keep one of them")
        return self


class ListedNode(_Table):
    """A node in a list of nodes."""

    host: Host
    port: Port | None = None
    weight: FromZero
    priority: Whole = 0
    metadata: Anything | None = None


class _KeepalivePool(TypedDict, total=False):
    size: FromOne
    idle_timeout: Annotated[float, Field(ge=0)]
    requests: FromOne


class _DiscoveryArgs(TypedDict, total=False):
    namespace_id: String
    group_name: String


class _Balancing(_Entry):
    """The fields of an upstream about its nodes, and how requests are spread over them."""

    nodes: (
        Annotated[
            Annotated[dict[Any, FromZero], Tag("<mapping>")] | Annotated[list[ListedNode], _LIST, Tag("<list>")],
            pydantic.Discriminator(lambda value: "<mapping>" if isinstance(value, Mapping) else "<list>"),
        ]
        | None
    ) = None
    type: String = "roundrobin"
    checks: Annotated[_Checks, _TABLE] | None = None
    hash_on: Literal["vars", "header", "cookie", "consumer", "vars_combinations"] = "vars"
    key: String = ""
    discovery_type: String | None = None
    discovery_args: Annotated[_DiscoveryArgs, _TABLE] | None = None
    service_name: Name | None = None


class Upstream(_Balancing):
    """An entry of ``upstreams``, or the ``upstream`` of a route or a service."""

    name: Name | None = None
    retries: FromZero = 0
    retry_timeout: Annotated[float, Field(ge=0)] = 0
    timeout: Annotated[Timeout, _TABLE] | None = None
    tls: Tls | None = None
    keepalive_pool: Annotated[_KeepalivePool, _TABLE] | None = None
    scheme: Literal["grpc", "grpcs", "http", "https", "tcp", "tls", "udp", "kafka"] = "http"
    pass_host: Literal["pass", "node", "rewrite"] = "pass"
    upstream_host: Host = ""

    @pydantic.model_validator(mode="after")
    def _rewritten_host(self) -> Self:
        if self.pass_host == "rewrite" and not self.upstream_host:
            raise wrong("pass_host is rewrite, so it needs an upstream_host")
        return self


class Service(_Entry):
    """An entry of ``services``."""

    name: Name | None = None
    plugins: Anything | None = None
    upstream: Upstream | None = None
    upstream_id: Id | None = None
    script: Script | None = None
    enable_websocket: bool = False
    hosts: Hosts | None = None


class _Matching(_Entry):
    """The fields of a route that say which requests it is for."""

    uri: Annotated[str, Field(max_length=4096), _STRING, _SLASH] | None = None
    uris: Annotated[list[Annotated[String, _SLASH]], Field(min_length=1), _UNIQUE, _LIST] | None = None
    priority: Whole = 0
    methods: Annotated[list[Method], _UNIQUE, _LIST] | None = None
    host: RouteHost | None = None
    hosts: Hosts | None = None
    remote_addr: Address | None = None
    remote_addrs: Annotated[list[Address], Field(min_length=1), _UNIQUE, _LIST] | None = None
    vars: Annotated[list[Any], _LIST] | None = None
    filter_func: Function | None = None


class Route(_Matching):
    """An entry of ``routes``."""

    name: Name | None = None
    plugins: Anything | None = None
    timeout: Annotated[Timeout, _TABLE] | None = None
    script: Script | None = None
    script_id: Id | None = None
    plugin_config_id: Id | None = None
    service_id: Id | None = None
    upstream: Upstream | None = None
    upstream_id: Id | None = None
    enable_websocket: bool = False
    status: Annotated[Literal[0, 1], _WHOLE] = 1

    @pydantic.model_validator(mode="after")
    def _fields(self) -> Self:
        there = self.model_fields_set
        if ("uri" in there) == ("uris" in there):
            raise wrong("it needs either uri or uris, and not both")
        for one, more in (("host", "hosts"), ("remote_addr", "remote_addrs")):
            if there >= {one, more}:
                raise wrong(f"it has {one} as well; keep one of them", more)
        if not there & {"plugins", "upstream", "upstream_id", "service_id", "script"}:
            raise wrong("it needs plugins, an upstream, an upstream_id or a service_id; {} will do for plugins")
        return self


class PluginConfig(_Entry):
    """An entry of ``plugin_configs``."""

    name: String | None = None
    plugins: Anything


class Consumer(_Entry):
    """An entry of ``consumers``."""

    username: Username
    plugins: Anything | None = None
    group_id: Id | None = None


class GlobalRule(_Closed):
    """An entry of ``global_rules``."""

    plugins: Anything
    id: Id
    create_time: Whole | None = None
    update_time: Whole | None = None
