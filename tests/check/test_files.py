"""Whole files of routes, in each form, alone and together."""

import json
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.check import Finding, check_files
from tests.check.bridges import make_bridge

DATA = Path(__file__).parent.parent / "data" / "routes"
GOOD = '{"rate": {"per": 1}}'
BAD = '{"rate": {"per": []}}'
UPSTREAM = {"type": "roundrobin", "nodes": {"127.0.0.1:1980": 1}}


def found(*files: tuple[str, str | bytes]) -> list[tuple[str, str, str]]:
    return [(each.severity, each.where, each.message) for each in check_files(files, make_bridge().plugins)]


def wrong_fields(*files: tuple[str, str | bytes]) -> list[tuple[str, int | None, str | None, str | None]]:
    findings = check_files(files, make_bridge().plugins)
    assert {each.severity for each in findings} <= {"error"}
    return [(each.file, each.line, each.plugin, each.field) for each in findings]


def listed(value: str = BAD, name: str = "limit") -> dict[str, Any]:
    return {"ext-plugin-pre-req": {"conf": [{"name": name, "value": value}]}}


def admin(section: str, **entries: dict[str, Any]) -> str:
    """What the Admin API answers to a GET of a section."""
    values = [{"key": f"/apisix/{section}/{key}", "value": value} for key, value in entries.items()]
    return json.dumps({"total": len(values), "list": values})


def test_an_apisix_yaml() -> None:
    text = f"""\
routes:
- uri: /*
  plugins:
    ext-plugin-pre-req:
      conf:
      - {{name: limit, value: '{BAD}'}}
#END
"""
    assert wrong_fields(("apisix.yaml", text)) == [("apisix.yaml", 6, "limit", "rate.per")]
    assert wrong_fields(("apisix.yaml", text.replace(BAD, GOOD))) == []


def test_an_apisix_json() -> None:
    routes = [{"uri": "/*", "plugins": listed(), "upstream": UPSTREAM}]
    assert wrong_fields(("apisix.json", json.dumps({"routes": routes}))) == [("apisix.json", 1, "limit", "rate.per")]
    (line,) = [
        number
        for number, line in enumerate(json.dumps({"routes": routes}, indent=1).splitlines(), 1)
        if '"value"' in line
    ]
    text = json.dumps({"routes": routes}, indent=1)
    assert wrong_fields(("apisix.json", text)) == [("apisix.json", line, "limit", "rate.per")]


def test_json_of_the_admin_api() -> None:
    route = {"uri": "/*", "plugins": listed(), "upstream": UPSTREAM}
    assert wrong_fields(("<stdin>", admin("routes", r=route))) == [("<stdin>", 1, "limit", "rate.per")]
    assert wrong_fields(("r.json", json.dumps(route, indent=0))) == [("r.json", 8, "limit", "rate.per")]
    assert wrong_fields(("<stdin>", admin("routes"))) == []


def test_a_file_of_adc() -> None:
    text = f"""\
services:
- name: shop
  routes:
  - name: all
    uris: [/*]
    plugins:
      ext-plugin-post-req:
        conf:
        - name: limit
          value: |
            {{"rate":
              {{"per": []}}}}
  upstream: {{nodes: [{{host: 127.0.0.1, port: 80, weight: 1}}]}}
consumers:
- username: ada
  plugins: {{ext-plugin-pre-req: {{conf: [{{name: limit, value: '{BAD}'}}]}}}}
  credentials: [{{name: j, type: jwt-auth, config: {{key: k}}}}]
consumer_groups:
- name: g
  plugins: {{ext-plugin-pre-req: {{conf: [{{name: limit, value: '{BAD}'}}]}}}}
"""
    assert wrong_fields(("adc.yaml", text)) == [
        ("adc.yaml", 12, "limit", "rate.per"),
        ("adc.yaml", 16, "limit", "rate.per"),
        ("adc.yaml", 20, "limit", "rate.per"),
    ]


PLUGIN_CONFIG = f"""\
apiVersion: apisix.apache.org/v2
kind: ApisixPluginConfig
metadata: {{name: limits}}
spec:
  plugins:
  - name: ext-plugin-post-resp
    enable: true
    config:
      conf:
      - {{name: session, value: '{{}}'}}
      - {{name: limit, value: '{BAD}'}}
"""
ROUTE = """\
apiVersion: apisix.apache.org/v2
kind: ApisixRoute
metadata: {name: shop}
spec:
  http:
  - name: all
    match: {paths: [/*]}
    backends: [{serviceName: shop, servicePort: 80}]
    plugin_config_name: limits
    plugins:
    - name: ext-plugin-pre-req
      enable: true
      config: {conf: [{name: session, value: '{"max_age": []}'}]}
"""


def test_resources_of_kubernetes_in_one_file_and_in_several() -> None:
    assert wrong_fields(("all.yaml", PLUGIN_CONFIG + "---\n" + ROUTE)) == [
        ("all.yaml", 11, "limit", "rate.per"),
        ("all.yaml", 25, "session", "max_age"),
    ]
    assert wrong_fields(("route.yaml", ROUTE), ("config.yaml", PLUGIN_CONFIG)) == [
        ("route.yaml", 13, "session", "max_age"),
        ("config.yaml", 11, "limit", "rate.per"),
    ]


def test_a_plugin_config_alone() -> None:
    severities = {(each.plugin, each.line, each.severity) for each in check_files(
        [("config.yaml", PLUGIN_CONFIG)], make_bridge().plugins
    )}  # fmt: skip
    assert severities == {("session", 10, "warning"), ("limit", 11, "error")}


def test_routes_of_the_admin_api_refer_to_other_files() -> None:
    route = {"uri": "/*", "service_id": "s", "plugin_config_id": "p", "upstream_id": "u"}
    session = {"ext-plugin-post-resp": {"conf": [{"name": "session", "value": "{}"}]}}
    routes = ("routes.json", admin("routes", r={**route, "plugins": listed('{"max_age": 1}', "session")}))
    services = ("services.json", admin("services", s={"plugins": session}))
    configs = ("configs.json", admin("plugin_configs", p={"plugins": {"ext-plugin-post-req": listed().popitem()[1]}}))
    missing = "could be read from the given files, so its plugins are not checked; give what the Admin API has under"
    assert found(routes) == [
        (
            "warning", "routes.json:1",
            f"route 'r': plugin_config_id: no plugin_config 'p' {missing} plugin_configs as well",
        ),
        ("warning", "routes.json:1", f"route 'r': service_id: no service 's' {missing} services as well"),
        (
            "warning", "routes.json:1",
            "route 'r': ext-plugin-pre-req.conf[0]: plugin session has phase=\"both\" and stands in the request phase "
            "only, so it sees no responses; list it under ext-plugin-post-resp too",
        ),
    ]  # fmt: skip
    assert wrong_fields(services, routes, configs) == [("configs.json", 1, "limit", "rate.per")]


def test_each_apisix_yaml_stands_for_itself() -> None:
    text = "routes: [{id: 1, uri: /*, service_id: s}]\nservices: [{id: s, plugins: {}}]\n#END\n"
    other = "routes: [{id: 1, uri: /*, service_id: s}]\n#END\n"
    assert found(("a.yaml", text), ("b.yaml", text)) == []
    assert found(("a.yaml", text), ("b.yaml", other)) == [
        (
            "error", "b.yaml:1",
            "route '1': service_id: there is no service 's'; there are: none; APISIX drops the route, so its requests "
            "get 404",
        )
    ]  # fmt: skip


def test_entries_that_no_route_of_the_file_uses_are_checked_too() -> None:
    entry = f"plugins: {{ext-plugin-pre-req: {{conf: [{{name: limit, value: '{BAD}'}}]}}}}"
    text = f"""\
routes:
- {{id: z, uri: /*, status: 0, {entry}}}
services:
- {{id: s, {entry}}}
plugin_configs:
- {{id: p, {entry}}}
consumers:
- {{username: jack, {entry}}}
- {{username: ada, plugins: {{key-auth: {{key: k}}, {entry[10:-1]}}}}}
consumer_groups:
- {{id: g, {entry}}}
global_rules:
- {{id: 1, {entry}}}
#END
"""
    findings = check_files([("apisix.yaml", text)], make_bridge().plugins)
    assert [each.line for each in findings if each.field == "rate.per"] == [2, 4, 6, 8, 9, 11, 13]


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        ("", "f", "the file is empty; one without routes has at least the line #END"),
        ("routes:\n- {uri: [}\n#END\n", "f:2", "this is not YAML: expected the node content, but found '}'"),
        ('{\n"routes": [,]}', "f:2", "this is not JSON: Expecting value"),
        ("routes: []\n", "f", "the last line has to be #END; APISIX does not read a file without it (it may be half "
         "written)"),
        (b"routes: []\n# \xff\n#END\n", "f:2", "the route file cannot be read: it is not UTF-8; save it as UTF-8"),
        ('{"error_msg":\n"failed to check token"}', "f:1", "error_msg: the Admin API has answered with an error: "
         "failed to check token"),
        ('{"message": "Not Found"}', "f", "there are no routes in this: it is no apisix.yaml, no JSON of the Admin "
         "API, no file of ADC, and no resource of Kubernetes. Its fields are message"),
        ("routes: {}\n#END\n", "f:1", "routes: this has to be a list, not {} (mapping)"),
        ('{"total": 1, "list": [{"key": "/other/1", "value": {}}]}', "f:1", "list[0].key: '/other/1' is not a key of "
         "APISIX like /apisix/routes/1"),
        ("[" * 3000, "f", "lists and mappings are nested too deeply"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_a_finding_and_the_others_are_checked(
    content: str | bytes, where: str, message: str
) -> None:
    other = ("other.json", admin("routes", r={"uri": "/*", "plugins": listed(), "upstream": UPSTREAM}))
    first, second = found(("f", content), other)
    assert first == ("error", where, message)
    assert second[:2] == ("error", "other.json:1")


def test_each_missing_environment_variable_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_HOST", "NO_PORT"):
        monkeypatch.delenv(name, raising=False)
    text = "routes:\n- uri: /${{NO_HOST}}\n  plugins: {}\n- uri: /${{NO_PORT}}\n  plugins: {}\n#END\n"
    start = "is not set; APISIX then does not read the file. Set it, or give a default"
    assert found(("f.yaml", text)) == [
        ("error", "f.yaml:2", f"the environment variable NO_HOST {start}: ${{{{NO_HOST:=default}}}}"),
        ("error", "f.yaml:4", f"the environment variable NO_PORT {start}: ${{{{NO_PORT:=default}}}}"),
    ]


def test_two_lists_of_the_response_phase_are_a_warning() -> None:
    plugins = f"plugins: {{ext-plugin-post-resp: {{conf: [{{name: limit, value: '{GOOD}'}}]}}}}"
    text = f"routes:\n- {{id: a, uri: /a, {plugins}}}\n- {{id: b, uri: /b, plugins: {{}}}}\n"
    text += f"global_rules:\n- {{id: g, {plugins}}}\n#END\n"
    assert found(("f.yaml", text)) == [
        (
            "warning", "f.yaml:2",
            "route a and a global rule both have ext-plugin-post-resp: APISIX then calls the upstream twice and cuts "
            "the client's response off, or passes over the route's list; keep one of the two",
        )
    ]  # fmt: skip


def test_two_lists_are_found_where_no_lines_are_known() -> None:
    plugins = {"ext-plugin-post-resp": {"conf": [{"name": "limit", "value": GOOD}]}}
    # a character that JSON may contain, and YAML may not
    routes = {"routes": [{"id": "a", "uri": "/a", "desc": "\x7f", "plugins": plugins}]}
    text = json.dumps(routes | {"global_rules": [{"id": "g", "plugins": plugins}]}, ensure_ascii=False)
    assert [where for _, where, _ in found(("a:b.json", text))] == ["a:b.json"]


def test_what_only_the_stand_in_cannot_do_is_no_finding() -> None:
    text = """\
routes:
- id: a
  uri: /a
  enable_websocket: true
  plugins: {openid-connect: {}, limit-cuont: {}, proxy-rewrite: {use_real_request_uri_unsafe: true}}
  upstream: {scheme: grpc, nodes: {"a:80": 1}}
- {id: b, uri: /b, upstream: {service_name: s, discovery_type: dns}, filter_func: "function() return true end"}
- {id: c, uri: /c, plugins: {}, upstream: {nodes: {"a:80": 1}, retries: 3}}
ssls: []
stream_routes: [{id: 1}]
consumers: [{username: ada, plugins: {jwt-auth: {key: k}}}]
#END
"""
    assert found(("f.yaml", text)) == [
        (
            "warning", "f.yaml:5",
            "route 'a': plugins.limit-cuont: neither the stand-in nor APISIX 3.18 has this plugin: unless your gateway "
            "has one of its own of this name, it drops the route; did you mean 'limit-count'?; it is passed over",
        )
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir() if path.is_file()))
def test_every_form_can_be_checked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.gateway.routes.test_forms import ENVIRONMENT

    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    findings = check_files([(name, (DATA / name).read_bytes())], make_bridge().plugins)
    assert [each for each in findings if each.file != name or each.stand_in or "Traceback" in each.message] == []


def test_findings_come_in_the_order_of_files_and_lines() -> None:
    entry = f"plugins: {{ext-plugin-pre-req: {{conf: [{{name: limit, value: '{BAD}'}}]}}}}"
    text = f"global_rules:\n- {{id: 1, {entry}}}\nroutes:\n- {{uri: /*, nothing: 1}}\n- {{uri: /b, {entry}}}\n#END\n"
    route = admin("routes", r={"uri": "/*", "plugins": listed(), "upstream": UPSTREAM})
    findings = check_files([("b.json", route), ("a.yaml", text)], make_bridge().plugins)
    assert [each.where for each in findings] == ["b.json:1", "a.yaml:2", "a.yaml:4", "a.yaml:5"]


def test_a_finding_knows_its_file() -> None:
    assert Finding("error", None, None, "a:1:5", "no", 5).file == "a:1"
    assert Finding("error", None, None, "a", "no").file == "a"
