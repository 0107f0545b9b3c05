"""``asgi-bridge plugins`` lists plugins in columns, tells all about one, and prints the schema of routes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

BRIDGE = "tests.reference.plugins:bridge"
ROOT = Path(__file__).parents[2]


def run(*arguments: str, columns: int = 100, folder: Path = ROOT) -> str:
    environment = {**os.environ, "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "asgi_bridge", "plugins", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    return done.stdout if done.returncode == 0 else f"{done.returncode}: {done.stderr}"


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


def test_a_single_argument_is_a_name_unless_it_is_a_module_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.asgi_bridge]\nbridge = "asgi_bridge_apps:bridge"\n')
    (tmp_path / "mine.py").write_text("async def app(scope, receive, send): ...\n")

    for name in ("limit-count", "cors", "gzip", "say"):
        assert run(name, folder=tmp_path).startswith(f"{name}: ")
    for target in ("mine.py", "mine", "mine:app"):
        assert run(target, folder=tmp_path).startswith("app ")
    assert run("mine", "app", folder=tmp_path).startswith("app\nkind: application\n")


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


def test_a_name_where_there_is_nothing_to_find_it_in(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.asgi_bridge]\n")

    output = run("limit-count", folder=tmp_path)

    assert output.startswith(
        "2: asgi-bridge: 'limit-count' is neither a file nor a module, and for a plugin's name: no plugins in"
    )
    assert len(output.splitlines()) == 1


def test_as_json_and_as_a_schema_of_routes_of_one_plugin() -> None:
    (described,) = json.loads(run(BRIDGE, "strict", "--json"))
    schema = json.loads(run(BRIDGE, "strict", "--route-schema"))

    assert described["name"] == "strict"
    entry = schema["definitions"]["ext-plugin-pre-req"]["properties"]["conf"]["items"]
    assert entry["properties"]["name"]["enum"] == ["strict"]
