"""Route files as people keep them, in all the forms that the reader knows: each loads where the reader is not strict,
and what is passed over is said with its line. Beside each file of tests/data/routes stands, in the folder said, what is
said about it.
"""

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import ExtPlugin, Node, Plugins, Route, Routes, Upstream, load_routes, parse_routes
from asgi_bridge.gateway.routes.expressions import parse_expression
from asgi_bridge.gateway.routes.route import Consumer
from asgi_bridge.gateway.routes.text import replace_variables

FILES = Path(__file__).parents[2] / "data" / "routes"
NAMES = sorted(path.name for path in FILES.iterdir() if path.is_file())
ENVIRONMENT = {
    "DEGRADE": "true",
    "DOMAIN": "shop.test",
    "HERE": "1",
    "HOST": "127.0.0.1",
    "ID": "env",
    "KEY": "se:cret",
    "PLUGIN": "ext-plugin-pre-req",
    "PORT": "1980",
    "PRIORITY": "7",
    "SHOP_HOST": "127.0.0.1",
}
UPSTREAM = Upstream((Node("127.0.0.1", 1980),))
HELLO = ExtPlugin([(b"hello", b"{}")])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(FILES)


def described(routes: Routes) -> str:
    lines = [f"routes: {', '.join(route.id for route in routes.routes)}", f"consumers: {len(routes.consumers)}"]
    lines += [f"{finding.severity}: {finding}" for finding in routes.findings]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_loads_and_what_is_passed_over_is_named(name: str) -> None:
    assert described(load_routes(name, strict=False)) == (FILES / "said" / f"{name}.txt").read_text()


def test_there_are_more_than_fifteen_and_nearly_all_have_something_to_say() -> None:
    silent = [name for name in NAMES if "warning: " not in (FILES / "said" / f"{name}.txt").read_text()]
    assert len(NAMES) >= 15
    assert silent == ["admin-v2.json", "environment.yaml"]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"dashboard.yaml", "environment.yaml"}))
def test_strictly_what_the_stand_in_cannot_do_is_an_error_with_a_line(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name}:( line )?\d+: "):
        load_routes(name)


def test_adc() -> None:
    routes = load_routes("adc.yaml", strict=False)
    service = {"service_id": "5042d146667518a1a5017644946b8650aafca44c", "service_name": "shop", "upstream": UPSTREAM}
    # ADC makes its ids so: the SHA-1 of the names
    assert routes.routes == (
        Route(
            "02a4f8cd14d11eaf06544ad85ae8bcac6952e98d", ("/orders/*",), ("shop.test",), frozenset({"GET", "POST"}),
            name="orders", plugins=Plugins({"ext-plugin-pre-req": ExtPlugin([(b"hello", b'{"literal": "${HOME}"}')])}),
            upstream=Upstream((Node("127.0.0.1", 1980, 100),)), service_id=service["service_id"], service_name="shop",
        ),
        Route(
            "health", ("/health",), ("shop.test",), name="health", service_id=service["service_id"],
            service_name="shop", upstream=Upstream((Node("127.0.0.1", 1980, 100),)),
            vars=parse_expression([["arg_deep", "!", "==", "1"]]),
        ),
    )  # fmt: skip


def test_adc_gives_a_consumer_for_each_credential() -> None:
    routes = load_routes("adc-consumers.yaml", strict=False)
    of_ada = Plugins({"ext-plugin-pre-req": HELLO})
    assert routes.consumers == {
        "one": Consumer("ada", "one", of_ada),
        "two": Consumer("ada", "two", of_ada),
        "three": Consumer("bob", "three", Plugins()),
    }
    assert routes.global_rules == Plugins({"ext-plugin-post-req": HELLO})


def test_resources_of_the_ingress_controller() -> None:
    routes = load_routes("ingress.yaml", strict=False)
    orders, rest = routes.routes
    # the controller makes its ids so: the CRC of namespace, resource and rule
    assert orders == Route(
        "b2fa2d7c", ("/orders/*",), ("shop.test",), frozenset({"GET"}), 3, "shop_shop_orders",
        plugins=Plugins({"ext-plugin-pre-req": HELLO}, {"key-auth": {"header": "X-Key"}}),
        upstream=Upstream(UPSTREAM.nodes, connect=5, send=60, read=90),
        remote_addrs=orders.remote_addrs,
        vars=parse_expression(
            [["http_x_canary", "==", "yes"], ["arg_v", "!", "in", ["1", "2"]], ["uri", "~~", "^/orders/[0-9]+$"]]
        ),
    )  # fmt: skip
    assert list(map(str, orders.remote_addrs)) == ["10.0.0.0/8"]
    assert (rest.uris, rest.upstream, rest.plugins) == (("/*",), UPSTREAM, Plugins())
    assert routes.consumers == {"k": Consumer("shop_ada", "k")}


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("admin-put.json", Route("arr_1", ("/put/*",), name="as it is sent with PUT", upstream=UPSTREAM,
                                 plugins=Plugins({"ext-plugin-pre-req": HELLO}))),
        ("admin-get.json", Route("7", ("/get/*",), upstream=UPSTREAM,
                                 plugins=Plugins({"ext-plugin-post-resp": HELLO}))),
        ("admin-list.json", Route("a", ("/a",), upstream=UPSTREAM, plugins=Plugins({"ext-plugin-pre-req": HELLO}),
                                  service_id="s")),
        ("admin-v2.json", Route("1", ("/v2/1",), upstream=UPSTREAM)),
        ("plugin-config.yaml", Route("gate", upstream=UPSTREAM,
                                     plugins=Plugins({"ext-plugin-pre-req": ExtPlugin([(b"hello", b'{"a": 1}')])}))),
        ("standalone.json", Route("j", ("/j/*",), priority=7, upstream=UPSTREAM, plugins=Plugins(
            {"ext-plugin-pre-req": ExtPlugin([(b"hello", b'{"key": "se:cret"}')])}))),
    ],
)  # fmt: skip
def test_json_and_a_plugin_configuration_alone(name: str, route: Route) -> None:
    assert load_routes(name, strict=False).routes == (route,)


def test_environment_variables_in_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORE", "consumers:\n  - {username: late, plugins: {key-auth: {key: k}}}")
    routes = load_routes("environment.yaml")
    value = b'{"key": "se:cret", "untouched": "$host ${host}"}'
    assert routes.routes == (
        Route(
            "env", ("/shop/*",), ("*.shop.test",), priority=7, desc="a default with spaces",
            plugins=Plugins({"ext-plugin-pre-req": ExtPlugin([(b"hello", value)], True)}), upstream=UPSTREAM,
        ),
    )  # fmt: skip
    assert routes.consumers == {"k": Consumer("late", "k")}


def test_one_admin_body_alone_or_several_in_a_list() -> None:
    one = '{"id": 1, "uri": "/1", "plugins": {}}'
    assert [route.id for route in parse_routes(f"[{one}, {one.replace('1', '2')}]").routes] == ["1", "2"]
    rows = f'{{"code": 0, "data": {{"rows": [{one}], "total_size": 1}}}}'
    assert [route.id for route in parse_routes(rows).routes] == ["1"]


ODD: list[Any] = [
    None, True, 0, -1, 1.5, "", "a b", [], {}, [None], [[]], {"a": 1}, ["x", "y"], "*", 10**30, [{"name": 1}],
    "${{NOPE}}", "$env://X/y", "\U0001f600", "\udc80",
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize("name", NAMES)
def test_whatever_stands_in_a_file_the_error_is_one_for_people(name: str) -> None:
    text, _ = replace_variables((FILES / name).read_text(), name)
    chance = random.Random(name)
    for _ in range(12):
        documents = list(yaml.safe_load_all(text.replace("\t", " ")))
        for container, key in chance.sample(list(places(documents)), 2):
            # the second may stand in what the first has put away
            with contextlib.suppress(LookupError):
                container[key] = copy.deepcopy(chance.choice(ODD))
        odd = json.dumps(documents[0]) if name.endswith("json") else yaml.safe_dump_all(documents)
        if "#END" in text:
            odd += "#END"
        for strict in (True, False):
            with contextlib.suppress(ConfigurationError):
                described(parse_routes(odd, name, strict=strict))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"uri": "/", }', "f:1: this is no JSON: "),
        ('{"key": "/apisix/rutes/1", "value": {}}', "f:1: key: '/apisix/rutes/1' is no key of APISIX's"),
        ('{"openapi": "3.0.2", "paths": {}}', "f: this is an OpenAPI document; import it into a gateway"),
        ("services:\n- {routes: []}\n", "f:2: services[0]: a service of ADC's has a name; its routes are known by it"),
        ("services:\n- name: a\n  routes: {}\n", "f:3: services[0].routes: this has to be a list, not {} (mapping)"),
        (
            "apiVersion: v2\nkind: ApisixRoute\nspec:\n  http:\n  - match: {exprs: [{op: Eq}]}\n",
            "f:5: ApisixRoute '': spec.http[0].match.exprs[0]: scope is Query, Header, Cookie, Path, Variable or Body",
        ),
        (
            "apiVersion: v2\nkind: ApisixRoute\nspec: {http: [{timeout: {read: 5}}]}\n",
            "f:3: ApisixRoute '': spec.http[0].timeout.read: '5' is no duration, like 5s or 1m30s",
        ),
        (
            "apiVersion: v2\nkind: ApisixRoute\nspec: {http: [{timeout: {send: 1.2.3s}}]}\n",
            "f:3: ApisixRoute '': spec.http[0].timeout.send: '1.2.3s' is no duration, like 5s or 1m30s",
        ),
        (
            f"apiVersion: v2\nkind: ApisixRoute\nspec: {{http: [{{timeout: {{send: {'9' * 400}h}}}}]}}\n",
            f"f:3: ApisixRoute '': spec.http[0].timeout.send: '{'9' * 39} is no duration, like 5s or 1m30s",
        ),
        (
            "apiVersion: v2\nkind: ApisixRoute\nspec: {http: [{timeout: {connect: .s}}]}\n",
            "f:3: ApisixRoute '': spec.http[0].timeout.connect: '.s' is no duration, like 5s or 1m30s",
        ),
        (
            "apiVersion: v2\nkind: ApisixRoute\nspec: {http: [{upstreams: 5}]}\n",
            "f:3: ApisixRoute '': spec.http[0].upstreams: this has to be a list, not 5 (int)",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n",
            "f: none of these Kubernetes resources is APISIX's: Deployment, Ingress; the stand-in reads ApisixRoute, ",
        ),
        (
            "apiVersion: apisix.apache.org/v2\nkind: ApisixRoute\n---\nkind: Ingress\napiVersion: networking.k8s.io\n",
            "f:4: Ingress '': the stand-in does not read resources of kind Ingress",
        ),
        (
            "apiVersion: v2\nkind: ApisixPluginConfig\nspec: {plugins: {cors: {}}}\n",
            "f:3: ApisixPluginConfig '': spec.plugins: this has to be a list, not {'cors': {}} (mapping)",
        ),
    ],
)
def test_what_is_wrong_in_another_form(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_routes(text, "f")
    assert str(caught.value).startswith(message)
