"""The text of a route file: its end, environment variables, aliases, and YAML as APISIX reads it."""

import pytest

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import Node, Plugins, Upstream, parse_routes


@pytest.mark.parametrize("end", ["#END", "#END\n", "#END\r\n\r\n", "# ...#END  \n", "[] #END"])
def test_the_end_is_looked_for_in_the_last_ten_bytes(end: str) -> None:
    assert parse_routes(f"routes: {end if end.startswith('[') else chr(10) + end}").routes == ()


@pytest.mark.parametrize("end", ["#END\n\n\n\n\n\n\n", "#END\n# more", "#END\n" + " " * 6, "#end", ""])
def test_an_end_further_in_front_does_not_count(end: str) -> None:
    with pytest.raises(ConfigurationError, match="the last line has to be #END"):
        parse_routes(f"routes: []\n{end}")


def test_a_missing_variable_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B", "C"):
        monkeypatch.delenv(name, raising=False)
    text = "# ${{A}}\nroutes:\n  - uri: ${{ B }}\n    desc: ${{C:=}}\n#END\n"
    with pytest.raises(ConfigurationError) as caught:
        parse_routes(text, "f.yaml")
    first, second = str(caught.value).splitlines()
    assert first.startswith(
        "f.yaml:1: the environment variable A is not set; APISIX then does not read the file. Set it"
    )
    assert second.startswith("f.yaml:3: the environment variable B is not set")


def test_variables_are_put_in_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM", "\n      type: roundrobin\n      nodes: {'h:1': 1}\n")
    monkeypatch.setenv("NUMBER", "5")
    monkeypatch.setenv("SPACED ", "never found by a name with a blank")
    text = (
        "routes:\n  - id: '${{NUMBER}}'\n    uri: /${{NUMBER:=6}}\n    priority: ${{NUMBER}}\n"
        "    upstream:${{UPSTREAM}}\n    desc: ${{NUMBER := 7}}${{nothing:=a:=b}}\n    hosts: []\n#END"
    )
    # the lines after a variable of several lines are still those of the file
    with pytest.raises(ConfigurationError, match=r"^f:7: route '5': hosts: this list is empty"):
        parse_routes(text, "f")
    (found,) = parse_routes(text.replace("    hosts: []\n", ""), "f").routes
    assert (found.id, found.uris, found.priority, found.desc) == ("5", ("/5",), 5, "7a:=b")
    assert found.upstream == Upstream((Node("h", 1),))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  - {id: a, uri: /a, upstream: &u {nodes: {'h:1': 1}}}\n  - {id: b, uri: /b, upstream: *u}\n", 3),
        ("  - {id: a, uri: /a, plugins: &p {cors: {}}}\n  - id: b\n    uri: /b\n    plugins: *p\n", 5),
        ("  - &r {id: a, uri: /a, plugins: {}}\n  - <<: *r\n    id: b\n", 3),
        (
            "  - id: a\n    uri: /a\n    plugins:\n      ext-plugin-pre-req: {conf: &c [{name: n, value: ''}]}\n"
            "      ext-plugin-post-req: {conf: *c}\n",
            6,
        ),
        ("  - {id: a, uri: /a, plugins: {cors: &c {}}}\n  - {id: b, uri: /b, plugins: {cors: *c}}\n", 3),
        ("  - &r {id: a, uri: /a, plugins: {}}\n  - *r\n", 3),
    ],
)
def test_an_alias_of_a_mapping_is_refused_with_its_line(text: str, line: int) -> None:
    text = f"routes:\n{text}#END"
    with pytest.raises(
        ConfigurationError, match=rf"^apisix.yaml:{line}: .*this YAML alias stands for a mapping that is else"
    ):
        parse_routes(text)
    assert [finding.where for finding in parse_routes(text, strict=False).findings] == [f"apisix.yaml:{line}"]


def test_aliases_and_merges_of_scalars_are_accepted() -> None:
    text = (
        "x: &methods [GET, POST]\ny: &common {priority: 3, desc: same}\nroutes:\n"
        "  - {<<: *common, id: &id one, uri: /a, methods: *methods, plugins: {}, desc: own}\n"
        "  - {<<: [*common, {priority: 4}], id: two, uri: /b, methods: *methods, name: *id, plugins: {}}\n#END"
    )
    one, two = parse_routes(text, strict=False).routes
    assert (one.methods, one.priority, one.desc) == (frozenset({"GET", "POST"}), 3, "own")
    assert (two.methods, two.priority, two.desc, two.name) == (frozenset({"GET", "POST"}), 3, "same", "one")


def test_aliases_cannot_blow_up() -> None:
    lists = "".join(f"l{n + 1}: &l{n + 1} [*l{n}, *l{n}, *l{n}, *l{n}]\n" for n in range(40))
    merges = "".join(f"m{n + 1}: &m{n + 1} {{<<: [*m{n}, *m{n}, *m{n}], k{n}: 1}}\n" for n in range(40))
    routes = parse_routes(f"l0: &l0 [[x]]\nm0: &m0 {{a: 1}}\n{lists}{merges}routes: []\n#END", strict=False)
    assert len(routes.findings) == 82
    with pytest.raises(ConfigurationError, match="lists and mappings are nested too deeply"):
        parse_routes("routes: " + "[" * 1200 + "]" * 1200 + "\n#END")
    with pytest.raises(ConfigurationError, match="lists and mappings are nested too deeply"):
        parse_routes("[" * 100_000 + "]" * 100_000)


def test_yaml_as_apisix_reads_it() -> None:
    text = (
        "routes:\n- {id: a, uri: /a, plugins: , desc: 2026-11-29}\n- {id: b, uri: /b, plugins: {cors: }}\n---\nx: #END"
    )
    routes = parse_routes(text, strict=False)
    assert [(route.id, route.desc, route.plugins) for route in routes.routes] == [
        ("a", "2026-11-29", Plugins()),
        ("b", None, Plugins({}, {"cors": {}})),
    ]
    assert list(map(str, routes.findings)) == [
        "apisix.yaml: the file has several YAML documents, and APISIX reads the first one only"
    ]


def test_json_that_is_no_yaml_has_no_lines() -> None:
    text = '{"routes": [{"uri": "/", "plugins": {}, "desc": 5, "name": "\x7f"}]}'
    with pytest.raises(
        ConfigurationError, match=r"^f: route number 1 .*: desc: this has to be a string, not 5 \(int\)"
    ):
        parse_routes(text, "f")


def test_numbers_in_json_are_those_of_json() -> None:
    (found,) = parse_routes('{"routes": [{"uri": "/", "plugins": {},\t"priority": 1e1}]}').routes
    assert found.priority == 10
