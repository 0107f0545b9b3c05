"""``asgi-bridge plugins`` lists plugins in columns, tells all about one, and prints the schema of routes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from asgi_bridge.cli import cli
from asgi_bridge.errors import BridgeError

BRIDGE = "tests.reference.plugins:bridge"


def run(*arguments: str, columns: int = 100) -> str:
    """Return what the command prints; if it fails, its exit code and its last line."""
    result = CliRunner().invoke(cli, ["plugins", *arguments], env={"COLUMNS": str(columns)})
    if isinstance(result.exception, BridgeError):
        return f"2: {result.exception}"
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout if result.exit_code == 0 else f"{result.exit_code}: {result.stderr.splitlines()[-1]}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules a test may import."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_the_list_has_columns_and_is_wrapped_to_the_terminal() -> None:
    assert run(BRIDGE, columns=64) == (
        "plain   application  auto\n"
        "counts  middleware   response  [limit]\n"
        "strict  factory      request   name [rules] [weight] [mode]\n"
        "                               [labels] [either] [anything]\n"
        "open    factory      both      size\n"
    )


PAGE = """\
strict: Do something to a request.
kind: factory
phase: request

FIELD               TYPE                DEFAULT   DESCRIPTION
name                text                required  Its "name".
rules               list of object      []
rules[].paths       list of text        required  Paths that it is for.
rules[].rate        object              required  How often.
rules[].rate.per    "second" or         "minute"
                    "minute"
rules[].rate.count  integer, 1 to 100   required  How many.
"""


def test_a_name_gives_fields_with_types_defaults_and_descriptions_and_a_route() -> None:
    page = run(BRIDGE, "strict", columns=72)

    assert page.startswith(PAGE)
    assert max(map(len, page.splitlines())) <= 72
    text = page.partition("A route that lists it (apisix.yaml):\n\n")[2]
    (route,) = yaml.safe_load(text)["routes"]
    assert route["plugins"]["ext-plugin-pre-req"]["conf"] == [{"name": "strict", "value": '{"name": "it\'s $1"}'}]
    assert text.endswith("\n#END\n")


def test_a_narrow_terminal_has_each_description_below_its_field() -> None:
    page = run("asgi_bridge_apps", "limit-count", columns=40)

    assert "\ncount  integer, 1 to 10000000, required\n    Requests that may pass in the\n    window.\n" in page
    assert max(map(len, page.partition("A route")[0].splitlines())) <= 40


def test_a_plugin_without_fields_says_so() -> None:
    assert "\nIt takes any JSON as its configuration.\n" in run(BRIDGE, "plain")
    assert "\nIt has nothing to configure.\n" in run("asgi_bridge_apps", "https-redirect")


def test_a_single_argument_is_a_name_unless_it_is_a_module_or_a_file(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.asgi_bridge]\nbridge = "asgi_bridge_apps:bridge"\n')
    (folder / "mine_of_a_test.py").write_text("async def app(scope, receive, send): ...\n")
    within = ("--app-dir", str(folder))

    for name in ("limit-count", "cors", "gzip", "say"):
        assert run(name, *within).startswith(f"{name}: ")
    for target in (str(folder / "mine_of_a_test.py"), "mine_of_a_test", "mine_of_a_test:app"):
        assert run(target, *within).startswith("app ")
    assert run("mine_of_a_test", "app", *within).startswith("app\nkind: application\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((BRIDGE, "strikt"), "plugin strikt is not mounted; mounted are: counts, open, plain, strict; did you mean "
         "'strict'?"),
        ((BRIDGE, "strict", "--json", "--route-schema"), "--json and --route-schema exclude each other"),
    ],
)  # fmt: skip
def test_mistakes(arguments: tuple[str, ...], said: str) -> None:
    output = run(*arguments)

    assert output.startswith("2: ") and said in output


def test_a_name_where_there_is_nothing_to_find_it_in(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.asgi_bridge]\n")

    assert run("limit-count", "--app-dir", str(folder)).startswith(
        "2: 'limit-count' is neither a file nor a module, and for a plugin's name: no plugins in"
    )


def test_as_json_and_as_a_schema_of_routes_of_one_plugin() -> None:
    (described,) = json.loads(run(BRIDGE, "strict", "--json"))
    schema = json.loads(run(BRIDGE, "strict", "--route-schema"))

    assert described["name"] == "strict"
    entry = schema["definitions"]["ext-plugin-pre-req"]["properties"]["conf"]["items"]
    assert entry["properties"]["name"]["enum"] == ["strict"]
