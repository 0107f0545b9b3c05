"""The plugins of a route, as a file has them."""

import pytest

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import ExtPlugin, parse_routes, read_routes
from tests.gateway.routes.entries import builtin, ext, route


def test_keys_that_a_plugin_does_not_have_are_ignored() -> None:
    conf = [{"name": "a", "value": "{}", "enabled": True}]
    plugins = {
        "ext-plugin-pre-req": {"conf": conf, "disable": False, "whatever": 1},
        "ext-plugin-post-req": {"conf": conf, "disable": True},
        "cors": {"disable": False, "own": {}},
    }
    routes = read_routes(route(plugins=plugins))
    listed = ExtPlugin([(b"a", b"{}")])
    (found,) = routes.routes
    assert dict(found.plugins.ext) == {"ext-plugin-pre-req": listed, "ext-plugin-post-req": listed}
    assert list(map(str, routes.findings)) == [
        "routes: route 'x': plugins.ext-plugin-pre-req.whatever: APISIX does not know this field, and passes it over",
        "routes: route 'x': plugins.ext-plugin-post-req.disable: disable: true does nothing, and the plugin runs; what "
        "switches it off is _meta: {disable: true}",
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ext-plugin-pre-request", "did you mean 'ext-plugin-pre-req'?"),
        ("ext_plugin_post_resp", "did you mean 'ext-plugin-post-resp'?"),
        ("ext-plugin-post-response", "did you mean 'ext-plugin-post-resp'?"),
        ("ext-plugin", "there are ext-plugin-pre-req, ext-plugin-post-req, ext-plugin-post-resp"),
    ],
)
def test_a_misspelt_name_of_an_ext_plugin_drops_the_route(name: str, hint: str) -> None:
    (found,) = read_routes(builtin(name), strict=False).findings
    assert (found.severity, found.route, found.plugin) == ("error", "x", name)
    assert hint in found.message
    with pytest.raises(ConfigurationError, match="APISIX has no plugin of this name"):
        read_routes(builtin(name))


def test_plugins_that_are_not_there_are_reported_once_each() -> None:
    data = {"routes": [{"id": name, "uri": "/", "plugins": {"prometheus": {}, "ours": {}}} for name in "abc"]}
    text = "routes:" + "".join(f"\n  - id: {name}\n    uri: /\n    plugins: {{prometheus: {{}}}}" for name in "abc")
    assert len(read_routes(data, strict=False).findings) == 2
    assert list(map(str, parse_routes(f"{text}\n#END", strict=False).findings)) == [
        "apisix.yaml:4: route 'a': plugins.prometheus: the stand-in does not have this plugin of APISIX (here and on "
        "line 7, 10); it is passed over"
    ]


def test_values_of_the_environment_in_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONF", '{"a": 1}')
    monkeypatch.setenv("KEYS", '{"ada": "k1"}')
    monkeypatch.delenv("GONE", raising=False)
    names = ["$env://CONF", "$ENV://KEYS/ada", "$env://GONE", "$secret://vault/1/key", "no $env://CONF"]
    routes = read_routes(ext(conf=[{"name": f"n{n}", "value": value} for n, value in enumerate(names)]))
    assert routes.routes[0].plugins.ext["ext-plugin-pre-req"].conf == [
        (b"n0", b'{"a": 1}'), (b"n1", b"k1"), (b"n2", b"$env://GONE"), (b"n3", b"$secret://vault/1/key"),
        (b"n4", b"no $env://CONF"),
    ]  # fmt: skip
    assert [found.message.partition("value: ")[2] for found in routes.findings] == [
        "there is no environment variable GONE: APISIX uses the text '$env://GONE' itself",
        "the stand-in reaches no secret manager: '$secret://vault/1/key' stays as it is",
    ]
