"""Whole route files: what their entries become together, and what is wrong with them."""

from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import ExtPlugin, Node, Plugins, Route, Upstream, load_routes, read_routes
from asgi_bridge.gateway.routes.route import Consumer
from tests.gateway.routes.entries import builtin, ext, route, upstream

GOOD = """\
routes:
  - id: one
    uri: /hello/*
    host: Hello.test
    methods: [GET, POST]
    priority: 3
    name: greeting
    desc: says hello
    timeout: {connect: 6, send: 60, read: 1.5}
    plugins:
      ext-plugin-pre-req:
        conf:
          - name: hello
            value: '{"a": 1}'
        allow_degradation: true
      cors: {}
      ext-plugin-post-req:
        _meta: {disable: true}
    upstream:
      type: roundrobin
      nodes: {"127.0.0.1:8000": 1, "backend": 2, "[::1]": 0, "[::2]:81": 0}
      pass_host: rewrite
      upstream_host: up.test
  - uris: [/a, /b*]
    hosts: [a.test, "*.b.test"]
    service_id: 7
    plugin_config_id: pc
    upstream_id: up
  - {id: "off", uri: /off, status: 0, plugins: {}}
  - {id: bare, uri: /bare, service_id: 7}
upstreams:
  - {id: up, scheme: https, nodes: [{host: h, port: 8443, weight: 5}, {host: i, weight: 1}]}
services:
  - id: 7
    name: svc
    hosts: [svc.test]
    upstream: {nodes: {"127.0.0.1:9": 1}}
    plugins: {ext-plugin-post-resp: {}, cors: {}}
plugin_configs:
  - {id: pc, plugins: {request-id: {}}}
consumers:
  - {username: bob, plugins: {key-auth: {key: k}, ext-plugin-pre-req: {conf: [{name: a, value: "{}"}]}}}
#END
"""


def test_good_file(tmp_path: Path) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(GOOD)
    routes = load_routes(file)
    nodes = (Node("127.0.0.1", 8000, 1), Node("backend", 80, 2), Node("::1", 80, 0), Node("::2", 81, 0))
    assert routes.routes == (
        Route(
            "one", ("/hello/*",), ("hello.test",), frozenset({"GET", "POST"}), 3, "greeting", "says hello",
            Plugins(
                {"ext-plugin-pre-req": ExtPlugin([(b"hello", b'{"a": 1}')], True)}, {"cors": {}},
                frozenset({"ext-plugin-post-req"}),
            ),
            Upstream(nodes, "http", "rewrite", "up.test", read=1.5),
        ),
        Route(
            "arr_2", ("/a", "/b*"), ("a.test", "*.b.test"),
            plugins=Plugins({"ext-plugin-post-resp": ExtPlugin()}, {"cors": {}, "request-id": {}}),
            upstream=Upstream((Node("h", 8443, 5), Node("i", 443, 1)), "https"),
            service_id="7", service_name="svc", plugin_config_id="pc",
        ),
        Route(
            "bare", ("/bare",), ("svc.test",), plugins=Plugins({"ext-plugin-post-resp": ExtPlugin()}, {"cors": {}}),
            upstream=Upstream((Node("127.0.0.1", 9, 1),)), service_id="7", service_name="svc",
        ),
    )  # fmt: skip
    pre_req = ExtPlugin([(b"a", b"{}")])
    assert routes.consumers == {"k": Consumer("bob", "k", Plugins({"ext-plugin-pre-req": pre_req}))}


def test_global_rules_are_merged() -> None:
    rules = [
        {"id": 1, "plugins": {"ext-plugin-pre-req": {}, "request-id": {"_meta": {"disable": True}}}},
        {"id": "two", "plugins": {"cors": {}, "ext-plugin-post-resp": {"_meta": {"priority": 5}}}, "create_time": 1},
    ]
    ext = {"ext-plugin-pre-req": ExtPlugin(), "ext-plugin-post-resp": ExtPlugin(priority=5)}
    assert read_routes({"global_rules": rules}).global_rules == Plugins(ext, {"cors": {}}, frozenset({"request-id"}))
    assert read_routes({}).global_rules == Plugins()


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"routes": [3]}, "route number 1: this has to be a mapping, not 3 (int)"),
        (
            {"routes": [{"uri": "/", "plugins": {}}, {"id": "arr_1", "uri": "/", "plugins": {}}]},
            "route 'arr_1': there is another route with this id; ids are unique",
        ),
        (route(id=[1]), "[1] (list) is not an id: ids are numbers from 1, or have 1 to 64 letters"),
        (route(script="x"), "script: the stand-in does not know this field"),
        (route(enable_websocket=True), "the stand-in does not proxy WebSockets"),
        (route(uris=["/"]), "it needs either uri or uris, and not both"),
        ({"routes": [{"id": "x"}]}, "it needs either uri or uris, and not both"),
        (route(uri=None), "uri: this has to be a string, not nothing; put it in quotes"),
        (route(uri="x"), "'x' has to begin with a slash"),
        ({"routes": [{"uris": []}]}, "uris: this list is empty; give it an entry, or take it out"),
        (route(host="a", hosts=["b"]), "it has host as well; keep one of them"),
        (route(host="a:80"), "'a:80' has to be a name without a port"),
        (route(hosts=["a*"]), "'a*' has to be a name without a port"),
        (
            route(methods=["get"]),
            "OPTIONS, CONNECT, TRACE or PURGE, not 'get'",
        ),
        (route(priority="1"), "priority: this has to be a whole number, not '1' (str)"),
        (route(service_id=1), "there is no service '1'; there are: none"),
        (route(upstream_id=1, upstream={}), "it has an upstream as well; keep one of them"),
        (route(plugins=[]), "plugins: this has to be a mapping, not [] (list)"),
        ({"services": [{"plugins": {}}]}, "service number 1: it has no id; routes refer to it by that"),
        (ext(conf=[]), "conf: this list is empty; give it an entry, or take it out"),
        (ext(conf=[{"name": "", "value": ""}]), "conf[0].name: this is empty; APISIX accepts one character at least"),
        (
            ext(conf=[{"name": "a"}]),
            "APISIX requires value here; give the plugin's configuration, '{}' where",
        ),
        (ext(conf=[None]), "conf[0]: APISIX requires name and value here; give the plugin's conf"),
        (ext(conf=[{"value": ""}]), "conf[0]: APISIX requires name here"),
        (ext(conf=[{"name": "a", "value": None}]), "conf[0].value: this has to be a string, not nothing; put it in"),
        (ext(allow_degradation="yes"), "this has to be true or false, not 'yes' (str)"),
        (upstream(nodes=[]), "there is no node; give at least one"),
        (route(upstream={}), 'it needs nodes, as {"127.0.0.1:8000": 1} or [{host'),
        (upstream(nodes={"h:0": 1}), "a node has a host and a port from 1 to 65535, not 'h' and 0"),
        (upstream(nodes=[{"host": "h", "port": 1, "weight": -1}]), "weight: this has to be a number from 0, not -1"),
        (upstream(scheme="grpc"), "the stand-in speaks http and https, not 'grpc'"),
        (upstream(pass_host="all"), "this has to be pass, node or rewrite, not 'all'"),
        (upstream(pass_host="rewrite"), "pass_host is rewrite, so it needs an upstream_host"),
        (upstream(timeout={"read": 0}), "timeout.read: this has to be a number of seconds over 0, not 0 (int)"),
        (upstream(timeout={"reed": 1}), "timeout: APISIX requires connect and send and read here"),
        ({"consumers": [{"username": "a"}]}, "without key-auth no request finds this consumer"),
        (
            {"global_rules": [{"id": 1}]},
            "global rule '1': APISIX requires plugins here; name them, or take",
        ),
        ({"global_rules": [{"plugins": []}]}, "global rule number 1: plugins: this has to be a mapping, not [] (list)"),
        (
            {"global_rules": [{"id": 1, "plugins": {"x": {}}}]},
            "plugins.x: neither the stand-in nor APISIX 3.18 has this plugin",
        ),
        (
            {"global_rules": [{"plugins": {}, "name": "x"}]},
            "name: APISIX does not know this field; take it out. There are",
        ),
        (
            {"global_rules": [{"id": 1, "plugins": {"cors": {}}}, {"id": 2, "plugins": {"cors": {}}}]},
            "global rule '2': plugins.cors: global rule '1' has this plugin as well, and APISIX then runs neither",
        ),
        (builtin("cors", allow_origins="*"), "only an empty configuration here, not allow_origins"),
        (
            builtin("cors", _meta={"disable": True, "filter": [["arg_a", "is", "b"]]}),
            "plugins.cors._meta.filter: there is no operator 'is'; there are: ! ==",
        ),
        (builtin("cors", _meta={"filter": {}}), "plugins.cors._meta.filter: this has to be a list, not {} (dict)"),
        (builtin("cors", _meta={"priority": "1"}), "_meta.priority: this has to be a whole number, not '1' (str)"),
        (
            builtin("cors", _meta={"priorty": 1}),
            "did you mean 'priority'? There are disable, error_response, filter, pre_function, priority",
        ),
        (builtin("cors", _meta={"pre_function": "return 1"}), "_meta.pre_function: the stand-in runs no Lua"),
        (builtin("proxy-rewrite", uri="/$a"), "uri has to be a string without variables"),
        (builtin("proxy-rewrite", uri="a"), "uri has to begin with a slash"),
        (builtin("proxy-rewrite", scheme="http"), "only uri, regex_uri, method, host, headers here, not scheme"),
        (builtin("proxy-rewrite", regex_uri=["^/x"]), "regex_uri has to be a list of patterns"),
        (builtin("proxy-rewrite", regex_uri=["(", "/"]), "regex_uri: '(' is no regular expression"),
        (builtin("proxy-rewrite", regex_uri=["a{99999999999}", "/"]), "regex_uri: 'a{99999999999}' is no regular exp"),
        (
            builtin("proxy-rewrite", regex_uri=["(" * 9000 + ")" * 9000, "/"]),
            "is no regular expression: maximum recurs",
        ),
        (
            {"routes": [{"uri": "/", "plugins": {}, "vars": [["uri", "~~", "a{99999999999}"]]}]},
            "vars: the stand-in cannot read the regular expression 'a{99999999999}': the repetition number is too",
        ),
        (builtin("key-auth", realm="x"), "only header, query, hide_credentials here, not realm"),
        (builtin("key-auth", header=["X-Key"]), "header or query has to be a mapping of names to strings"),
        (builtin("key-auth", hide_credentials="yes"), "hide_credentials has to be true or false"),
        (builtin("proxy-rewrite", headers=[]), "headers has to be a mapping of names to strings, or one of set"),
        (
            builtin("proxy-rewrite", headers={"add": {}, "X-A": "1"}),
            "understands set, add and remove in headers, not X-A",
        ),
        (builtin("proxy-rewrite", headers={"set": []}), "headers.set has to be a mapping of names to strings"),
        (builtin("proxy-rewrite", headers={"X-A": True}), "headers has to be a mapping of names to strings"),
        (builtin("proxy-rewrite", headers={"add": ["X-A: 1"]}), "headers.add has to be a mapping of names to strings"),
        (builtin("proxy-rewrite", headers={"add": {"X-A": "$host"}}), "take the $ out of headers.add"),
        (builtin("proxy-rewrite", headers={"remove": [1]}), "headers.remove has to be a list of names"),
        (
            builtin("response-rewrite", headers={"content_length": 5}),
            "a Content-Length in headers would not fit the body",
        ),
        (builtin("response-rewrite", headers={"add": {"X-A": "1"}}), "headers.add has to be a list of strings like"),
        (builtin("response-rewrite", headers={"add": ["X-A: b:c"]}), "headers.add has to be a list of strings like"),
        (builtin("response-rewrite", headers={"add": ["X-A: $host"]}), "take the $ out of headers.add"),
        ({"routes": [{"uri": "/a", "desc": 5}]}, "desc: this has to be a string, not 5 (int); put it in quotes"),
        ({"routes": [{"uri": "/a", "name": ["a"]}]}, "name: this has to be a string, not ['a'] (list)"),
        ({"routes": [{"uri": "/a", "status": "0"}]}, "status: this has to be 0 or 1, not '0'"),
        (ext(_meta={"filter": [["a", "===", 1]]}), "_meta.filter: there is no operator"),
        (ext(_meta={"priority": True}), "_meta.priority: this has to be a whole number, not True (bool)"),
        (ext(_meta={"error_response": 3}), "_meta.error_response: this has to be a string or a mapping, not 3 (int)"),
        (builtin("response-rewrite", status_code=99), "status_code has to be a number from 200 to 598"),
        (builtin("response-rewrite", body=1), "body has to be a string"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_routes(data)
    assert part in str(caught.value)


def test_a_dropped_entry_leaves_the_others_alone() -> None:
    data = {
        "routes": [
            {"id": "bad", "uri": "/", "desc": "x" * 300, "plugins": {}},
            {"id": "good", "uri": "/", "plugins": {}},
        ],
        "consumers": [{"username": "a b"}, {"username": "c", "plugins": {"key-auth": {"key": "k"}}}],
        "global_rules": [{"id": 1, "plugins": {"cors": {"_meta": 1}}}, {"id": 2, "plugins": {"request-id": {}}}],
    }
    routes = read_routes(data, strict=False)
    assert [route.id for route in routes.routes] == ["good"]
    assert (list(routes.consumers), routes.global_rules) == (["k"], Plugins({}, {"request-id": {}}))
    assert [(found.severity, found.route, found.plugin) for found in routes.findings] == [
        ("error", "bad", None), ("error", None, None), ("error", None, "cors"),
    ]  # fmt: skip
