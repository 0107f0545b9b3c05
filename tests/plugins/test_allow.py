"""What a route may name: files and servers that the mount of the plugin lists, and no regular expressions."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest
from pydantic import BaseModel, Field, SecretStr
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from typing_extensions import TypedDict

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.loading import load_bridge
from asgi_bridge.plugins import Allowed, SafePattern


class Conf(BaseModel):
    url: Annotated[str | None, Allowed("http", "https")] = None
    redis: Annotated[SecretStr | None, Allowed("redis", "rediss")] = None
    file: Annotated[str | None, Allowed("file")] = None


def factory(conf: Conf) -> ASGIApp:
    return upstream


def check(bridge: Bridge, conf: Any, name: str = "p") -> Any:
    return bridge.plugins[name].configuration.check(json.dumps(conf))


def mounted(**options: Any) -> Bridge:
    bridge = Bridge()
    bridge.plugin("p", **options)(factory)
    return bridge


def passes(conf: Any, **options: Any) -> bool:
    """Return whether a route may configure `conf`. A refusal never repeats the value."""
    bridge = mounted(**options)
    try:
        check(bridge, conf)
    except ConfigurationError as exc:
        assert not any(text in str(exc) for text in conf.values())
        return False
    return True


IDP = ["https://idp.test/", "http://10.0.0.5:8080/keys"]


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.test",
        "https://idp.test/",
        "https://idp.test:443/a/b.json?p=1&q",
        "https://IDP.test/%7Euser",
        "http://10.0.0.5:8080/keys",
        "http://10.0.0.5:8080/keys/a",
        "http://10.0.0.5:8080/keys?x=/../y",
    ],
)
def test_a_route_may_name_what_is_listed_and_what_is_beneath_it(url: str) -> None:
    assert passes({"url": url}, allow=IDP)
    assert not passes({"url": url})


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.test/",
        "https://idp.test:8443/",
        "https://idp.test.evil.test/",
        "https://idp.test./",
        "https://evil.test/idp.test/",
        "https://idp.test@evil.test/",
        "https://evil.test@idp.test/",
        "https://user:password@idp.test/",
        "https://evil.test#@idp.test/",
        "https://evil.test\\@idp.test/",
        "https://idp.test/\\..\\x",
        "https://idp.test/a/../b",
        "https://idp.test/a/%2e%2E/b",
        "https://idp.test/a%2f..%2fb",
        "https://idp.test/a%5c",
        "https://idp.test/a%00",
        "https://idp.test/a%0d%0aX: y",
        "https://idp.test/a\r\nX: y",
        "https://idp.test/ a",
        "https://idp.test/\x85",
        "https://\xefdp.test/",
        "https:// idp.test/",
        "https:idp.test/",
        "https:///idp.test/",
        "//idp.test/",
        " https://idp.test/",
        "https://idp.test:/",
        "https://idp.test:x/",
        "https://[::1/",
        "HTTPS://idp.test/",
        "http://10.0.0.5:8080/keysx",
        "http://10.0.0.5:8080/",
        "http://10.0.0.5:8080//keys",
        "http://10.0.0.5/keys",
        "http://167772165:8080/keys",
        "file:///etc/passwd",
        "redis://idp.test/",
    ],
)
def test_a_route_may_name_no_other_address(url: str) -> None:
    assert not passes({"url": url}, allow=[*IDP, "redis://idp.test", "/"])


def test_an_entry_with_a_query_is_that_url_alone() -> None:
    allow = ["https://idp.test/keys?p=sign"]

    found = [passes({"url": f"https://idp.test/keys{rest}"}, allow=allow) for rest in ("?p=sign", "", "?p=x", "/a")]
    assert found == [True, False, False, False]


REDIS = ["redis://10.0.0.5", "rediss://cache.test:6380/3"]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("redis://10.0.0.5", True),
        ("redis://10.0.0.5:6379/7", True),
        ("redis://user:pass%20word@10.0.0.5/7", True),
        ("redis://:pass@10.0.0.5", True),
        ("rediss://cache.test:6380/3", True),
        ("rediss://cache.test:6380/4", False),
        ("rediss://cache.test:6380", False),
        ("redis://cache.test:6380/3", False),
        ("rediss://10.0.0.5", False),
        ("redis://10.0.0.5:6380", False),
        ("redis://10.0.0.5?socket_timeout=1000", False),
        ("redis://10.0.0.5/0?", False),
        ("redis://10.0.0.5/0?unix_socket_path=/run/x.sock", False),
        ("redis://10.0.0.5/0#x", False),
        ("redis://10.0.0.5%2eevil.test", False),
        ("redis://a@b@10.0.0.5", False),
        ("redis://10.0.0.5@evil.test", False),
        ("redis://user:%0d%0aFLUSHALL%0d%0a@10.0.0.5", False),
        ("redis://user:\nFLUSHALL@10.0.0.5", False),
        ("unix:///run/redis.sock", False),
        ("unix://user:pass@/run/redis.sock?db=1", False),
        ("unix:/run/redis.sock", False),
        ("UNIX:///run/redis.sock", False),
        ("redis:///run/redis.sock", False),
        ("/run/redis.sock", False),
    ],
)
def test_a_redis_of_a_route_is_a_listed_server_without_options(url: str, allowed: bool) -> None:
    assert passes({"redis": url}, allow=[*REDIS, "/"]) is allowed


def test_a_route_may_name_files_in_listed_folders(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    for folder in ("keys/..2", "other", "keysx"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("keys/a", "keys/..2/b", "other/c", "keysx/d"):
        (tmp_path / file).touch()
    # as Kubernetes mounts a secret: links within the folder
    (keys / "data").symlink_to("..2")
    (keys / "b").symlink_to("data/b")
    (keys / "out").symlink_to("../other/c")
    (keys / "folder").symlink_to("../other")
    (tmp_path / "alias").symlink_to("keys")
    (tmp_path / "into").symlink_to("keys/a")
    allowed = ["keys/a", "keys/b", "keys/data/b", "keys/none", "keys//a", "keys/data/../a", "keys/./a"]
    refused = [
        "keys/out", "keys/folder/c", "other/c", "keysx/d", "keys/../other/c", "keys/../keysx/d", "into", "keys/a\0",
        "keys/\n", "",
    ]  # fmt: skip

    for allow in ([f"{keys}/"], [str(keys)]):
        assert [each for each in allowed if not passes({"file": f"{tmp_path}/{each}"}, allow=allow)] == []
        assert [each for each in refused if passes({"file": f"{tmp_path}/{each}"}, allow=allow)] == []
    # an entry may be a link itself, or a file
    assert passes({"file": f"{tmp_path}/alias/a"}, allow=[f"{tmp_path}/alias"])
    assert passes({"file": f"{keys}/out"}, allow=[f"{keys}/out"])
    assert not passes({"file": f"{keys}/a"}, allow=[f"{keys}/b"])
    assert not passes({"file": os.path.relpath(keys / "a")}, allow=[f"{keys}/"])


URL, FILE = "https://idp.test/a", "/etc/hosts"


@pytest.mark.parametrize(
    ("annotation", "value", "other"),
    [
        (Annotated[Path, Allowed("file")], FILE, "/usr/x"),
        (Annotated[pydantic.FilePath, Allowed("file")], FILE, "/usr/bin/env"),
        (Annotated[bytes, Allowed("file")], FILE, "/usr/x"),
        (Annotated[pydantic.SecretBytes, Allowed("file")], FILE, "/usr/x"),
        (Annotated[pydantic.HttpUrl, Allowed("https")], URL, "https://evil.test/"),
        (Annotated[pydantic.AnyUrl | None, Allowed("https")], URL, "https://evil.test/"),
        (Annotated[pydantic.RedisDsn, Allowed("redis")], "redis://idp.test/0", "redis://evil.test/0"),
        (Annotated[list[str], Allowed("https")], [URL, URL], [URL, "https://evil.test/"]),
        (Annotated[set[Path], Allowed("file")], [FILE], [FILE, "/usr/x"]),
        (Annotated[tuple[pydantic.HttpUrl, ...], Allowed("https")], [URL], [URL, "https://evil.test"]),
        (list[Annotated[pydantic.HttpUrl, Allowed("https")]], [URL], ["https://evil.test"]),
        (dict[Annotated[str, Allowed("https")], int], {URL: 1}, {"https://evil.test": 1}),
    ],
)
def test_the_mark_may_stand_on_paths_urls_secrets_and_lists(annotation: Any, value: Any, other: Any) -> None:
    def make(conf: Any) -> ASGIApp:
        return upstream

    make.__annotations__["conf"] = pydantic.create_model("Conf", x=(annotation, ...))
    bridge = Bridge()
    bridge.plugin("p", allow=["/etc/", "https://idp.test", "redis://idp.test"])(make)
    check(bridge, {"x": value})
    with pytest.raises(ConfigurationError, match=r"^field 'x.*': a route may not name this; "):
        check(bridge, {"x": other})
    # the operator's own default is trusted, whatever its type turns it into
    bridge = Bridge()
    bridge.plugin("p", defaults={"x": other})(make)
    if not isinstance(other, dict):  # keys of an object
        check(bridge, {})
    with pytest.raises(ConfigurationError, match=r"^field 'x.*': a route may not name this; "):
        check(bridge, {"x": value})


def test_a_type_that_looks_at_files_does_not_tell_a_route_whether_one_is_there() -> None:
    def make(conf: Any) -> ASGIApp:
        return upstream

    kind: Any = Annotated[pydantic.FilePath, Allowed("file")]
    make.__annotations__["conf"] = pydantic.create_model("Conf", x=(kind, ...))
    bridge = Bridge()
    bridge.plugin("p")(make)
    reasons = set()
    for path in (__file__, "/none/x", "/usr", "x"):
        with pytest.raises(ConfigurationError) as raised:
            check(bridge, {"x": path})
        reasons.add(str(raised.value))
    assert len(reasons) == 1


def test_a_file_outside_of_the_list_is_not_even_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = os.path.realpath

    def realpath(path: str, **more: Any) -> str:
        seen.append(path)
        return real(path, **more)

    monkeypatch.setattr(os.path, "realpath", realpath)

    assert not passes({"file": "/net/somewhere/x"}, allow=["/etc/apisix/keys/"])
    assert not passes({"file": "/etc/apisix/keys/../../../dev/stdin"}, allow=["/etc/apisix/keys/"])
    assert seen == []


def test_the_refusal_says_what_the_operator_can_do() -> None:
    bridge = mounted(allow=["https://idp.test/"])
    reasons = {}
    for conf in ({"url": "http://a.test"}, {"file": "/etc/passwd"}, {"redis": "redis://:secret@a"}, {"redis": "u:x"}):
        with pytest.raises(ConfigurationError) as caught:
            check(bridge, conf)
        reasons[str(conf)] = str(caught.value)

    reason = "a route may not name this; the operator can allow it where the plugin is mounted: allow="
    assert list(reasons.values()) == [
        f"field 'url': {reason}[\"http://HOST/\"], or --allow",
        f"field 'file': {reason}[\"/FOLDER/\"], or --allow",
        f"field 'redis': {reason}[\"redis://HOST/\"], or --allow",
        "field 'redis': a route gives a URL that begins with redis:// or rediss:// and is plain ASCII",
    ]


@pytest.mark.parametrize(
    "entry",
    ["", "keys/", "unix:///run/redis.sock", "https://user:x@idp.test/", "https://", "https:/x", "idp.test", "*",
     "https://idp.test:99999/", "https://*/", "https://idp.test/#a", "https://idp.test/\n", "/a\0"],
)  # fmt: skip
def test_an_entry_that_could_not_match_is_refused_at_the_mount(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="^plugin p: option allow.0: an entry is the absolute"):
        mounted(allow=[entry])


@pytest.mark.parametrize("allow", ["https://idp.test/", 5, [5], {"a": 1}])
def test_allow_is_a_list(allow: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^plugin p: option allow"):
        mounted(allow=allow)
    with pytest.raises(ConfigurationError, match=r"^option allow"):
        Bridge().include(mounted(), allow=allow)


# --- what the operator sets is trusted --------------------------------------------------------------------------------


def test_defaults_of_a_factory_are_the_operators_and_a_route_goes_over_them() -> None:
    bridge = mounted(defaults={"redis": "unix:///run/redis.sock?db=1", "file": "/dev/null"})

    found = check(bridge, {})
    assert (found.redis.get_secret_value(), found.file, found.url) == ("unix:///run/redis.sock?db=1", "/dev/null", None)
    # the same text in a default is not the route's choice
    assert check(bridge, {"file": "/dev/null"}) == found
    for conf in ({"file": "/dev/zero"}, {"url": "/dev/null"}, {"redis": "unix:///run/redis.sock"}):
        with pytest.raises(ConfigurationError, match="a route "):
            check(bridge, conf)


def test_what_python_builds_is_not_looked_at() -> None:
    assert Conf(url="http://a.test", file="/dev/null").file == "/dev/null"


def test_defaults_of_a_middleware_are_the_operators() -> None:
    def middleware(app: ASGIApp, file: Annotated[str, Allowed("file")] = "/a") -> ASGIApp:
        return app

    bridge = Bridge()
    bridge.add_middleware("p", middleware, defaults={"file": "/etc/passwd"})

    assert check(bridge, {}) == {"file": "/etc/passwd"}
    with pytest.raises(ConfigurationError, match="field 'file': a route may not name this"):
        check(bridge, {"file": "/etc/shadow"})


class Nested(BaseModel):
    name: str
    number: int = Field(ge=1)
    more: dict[str, int] = {}


def nested(conf: Nested) -> ASGIApp:
    return upstream


def test_defaults_of_a_factory_are_checked_at_the_mount_but_for_what_routes_have_to_give() -> None:
    bridge = Bridge()
    bridge.plugin("p", defaults={"number": 3})(nested)

    assert check(bridge, {"name": "a"}) == Nested(name="a", number=3)
    assert check(bridge, {"name": "a", "number": 4}) == Nested(name="a", number=4)
    assert bridge.plugins["p"].describe()["schema"]["required"] == ["name"]
    with pytest.raises(ConfigurationError, match="field 'name': Field required"):
        check(bridge, {})
    with pytest.raises(ConfigurationError, match="the configuration is no JSON object"):
        check(bridge, [1])


@pytest.mark.parametrize(
    ("defaults", "reason"),
    [
        ({"number": 0}, "default 'number': Input should be greater than or equal to 1"),
        ({"numbr": 1}, "default 'numbr': Extra inputs are not permitted"),
        ({"more": {"a": "x"}}, "default 'more.a': Input should be a valid integer"),
        ({"name": object()}, "defaults of a factory are JSON"),
    ],
)
def test_defaults_of_a_factory_that_no_route_could_make_good_are_refused(defaults: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin p: {re.escape(reason)}"):
        Bridge().plugin("p", defaults=defaults)(nested)


def unconfigured() -> ASGIApp:
    return upstream


def test_a_factory_without_configuration_has_no_defaults() -> None:
    with pytest.raises(ConfigurationError, match="has no parameter 'a'"):
        Bridge().plugin("p", defaults={"a": 1})(unconfigured)


# --- where an operator writes it --------------------------------------------------------------------------------------

made = mounted(allow=["/etc/"])


def test_a_bridge_that_is_included_gets_more_and_stays_as_it_was() -> None:
    bridge = Bridge()
    bridge.include(made, allow=["https://idp.test/"])

    assert bridge.plugins["p"].options.allow == ("/etc/", "https://idp.test/")
    assert check(bridge, {"url": "https://idp.test/", "file": "/etc/hosts"}).file == "/etc/hosts"
    assert made.plugins["p"].options.allow == ("/etc/",)
    with pytest.raises(ConfigurationError):
        check(made, {"url": "https://idp.test/"})


def test_a_file_says_it_for_one_plugin_and_for_the_bridge() -> None:
    bridge = Bridge()
    bridge.configure(
        {
            "bridge": f"{__name__}:made",
            "allow": ["https://idp.test/"],
            "plugins": {
                "q": {"factory": f"{__name__}:factory", "allow": ["/srv/"], "defaults": {"url": "http://a.test"}}
            },
        }
    )

    assert [each.options.allow for each in bridge.plugins.values()] == [("/etc/", "https://idp.test/"), ("/srv/",)]
    assert check(bridge, {}, "q").url == "http://a.test"
    with pytest.raises(ConfigurationError, match=r"^\[tool.asgi_bridge\] has allow, which is for the plugins of bridg"):
        Bridge().configure({"allow": ["/etc/"]})


def test_the_command_line_says_it_for_all() -> None:
    bridge = load_bridge(f"{__name__}:made", {"q": f"{__name__}:factory"}, allow=["/srv/"])

    assert [each.options.allow for each in bridge.plugins.values()] == [("/etc/", "/srv/"), ("/srv/",)]


# --- regular expressions ----------------------------------------------------------------------------------------------


class Typed(BaseModel):
    name: str = ""
    one: re.Pattern[str] | None = None
    several: list[re.Pattern[str]] = []
    by_name: dict[str, re.Pattern[str]] = {}
    compiled: Annotated[str, pydantic.AfterValidator(re.compile)] = ""
    origin_regex: str | None = None
    excludePatterns: list[str] = []
    aliased: str = Field("", alias="pathRegexp")
    letters: Annotated[str, Field(pattern="^a*$")] = ""
    use_regex: bool = False
    safe_regex: Annotated[str, SafePattern()] = ""


@dataclass
class Data:
    inner: Typed
    regex: str = ""


class Dictionary(TypedDict, total=False):
    rules: list[Typed]
    pattern: str


def typed(conf: Typed) -> ASGIApp:
    return upstream


def data(conf: Data) -> ASGIApp:
    return upstream


def dictionary(conf: Dictionary) -> ASGIApp:
    return upstream


def middleware(  # type: ignore[no-untyped-def]
    app: ASGIApp,
    one: re.Pattern[str] | None = None,
    several: tuple[re.Pattern[str], ...] = (),
    url_regex: Any = None,
    path_pattern=None,
    model: Typed | None = None,
    **more: Any,
) -> ASGIApp:
    return app


def patterns(**options: Any) -> Bridge:
    bridge = Bridge()
    for each in (typed, data, dictionary):
        bridge.plugin(each.__name__, **options)(each)
    bridge.add_middleware("middleware", middleware, **options)
    bridge.add_middleware("cors", CORSMiddleware, **options)
    return bridge


GIVEN = [
    ("typed", {"one": "a"}, "one"),
    ("typed", {"several": ["a"]}, "several.0"),
    ("typed", {"by_name": {"x": "a"}}, "by_name.x"),
    ("typed", {"compiled": "a"}, "compiled"),
    ("typed", {"origin_regex": "a"}, "origin_regex"),
    ("typed", {"excludePatterns": ["a"]}, "excludePatterns"),
    ("typed", {"pathRegexp": "a"}, "pathRegexp"),
    ("data", {"inner": {}, "regex": "a"}, "regex"),
    ("data", {"inner": {"one": "a"}}, "inner.one"),
    ("dictionary", {"pattern": "a"}, "pattern"),
    ("dictionary", {"rules": [{}, {"origin_regex": "a"}]}, "rules.1.origin_regex"),
    ("middleware", {"one": "a"}, "one"),
    ("middleware", {"several": ["a"]}, "several.0"),
    ("middleware", {"url_regex": {"x": ["a"]}}, "url_regex"),
    ("middleware", {"path_pattern": "a"}, "path_pattern"),
    ("middleware", {"model": {"one": "a"}}, "model.one"),
    ("middleware", {"other_regex": "a"}, "other_regex"),
    ("cors", {"allow_origin_regex": "(a+)+"}, "allow_origin_regex"),
]


@pytest.mark.parametrize(("name", "conf", "field"), GIVEN)
def test_a_route_gives_no_regular_expression_unless_the_mount_allows_it(name: str, conf: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(patterns(), conf, name)

    assert str(caught.value).split(": ", 1) == [
        f"field '{field}'",
        "a route may not give a regular expression, since Python's can take forever; the operator can allow it where "
        "the plugin is mounted: allow_patterns=True",
    ]
    check(patterns(allow_patterns=True), conf, name)


def test_what_is_no_regular_expression_passes() -> None:
    conf = {"name": "a", "letters": "aa", "use_regex": True, "safe_regex": "a", "origin_regex": None, "several": []}

    assert check(patterns(), conf, "typed").model_dump(exclude_defaults=True) == {
        "name": "a", "letters": "aa", "use_regex": True, "safe_regex": "a",
    }  # fmt: skip
    assert check(patterns(), {"allow_origins": ["*"]}, "cors") == {"allow_origins": ["*"]}


def test_the_schema_shows_these_fields_as_before() -> None:
    fields = patterns().plugins["cors"].describe()["schema"]["properties"]

    assert fields["allow_origin_regex"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert "required" not in patterns().plugins["typed"].describe()["schema"]


def test_patterns_of_the_operators_defaults_stay() -> None:
    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_origin_regex": "https://.*"})
    bridge.plugin("typed", defaults={"one": "a+", "several": ["b"]})(typed)

    assert check(bridge, {}, "cors") == {"allow_origin_regex": "https://.*"}
    assert check(bridge, {}, "typed").one == re.compile("a+")
    with pytest.raises(ConfigurationError, match="field 'one': a route may not give"):
        check(bridge, {"one": "c"}, "typed")
