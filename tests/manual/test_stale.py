"""What the manual says of options, commands, metrics and pictures is what the source says."""

import dataclasses
import json
import re
from typing import Any

import click
import pytest
import yaml

from asgi_bridge.cli import cli
from asgi_bridge.insight.exposition import render
from asgi_bridge.insight.tally import Tally
from asgi_bridge.plugins.options import Options
from asgi_bridge.wsgi.app import THREADS

from . import command_line
from .blocks import DOCS, ROOT
from .pictures import FOLDER, pictures

OPTIONS = (DOCS / "options.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### `(\w+)`\n\n(.*?)(?=^##)", OPTIONS, re.DOTALL | re.MULTILINE))
FIELDS = {field.name: field.default for field in dataclasses.fields(Options)}


def test_each_option_of_a_plugin_has_its_section() -> None:
    assert [*SECTIONS] == [*FIELDS]


@pytest.mark.parametrize("name", FIELDS)
def test_the_section_of_an_option_says_default_effect_cost_and_example(name: str) -> None:
    section = SECTIONS[name]
    default = re.search(r"^- \*Default:\* `(.*?)`", section, re.MULTILINE | re.DOTALL)
    assert default is not None
    assert " ".join(default[1].split()).replace('"', "'") == repr(FIELDS[name])
    assert re.search(r"^- \*What it does:\* \S", section, re.MULTILINE)
    assert re.search(r"^- \*Cost:\* \S", section, re.MULTILINE)
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert re.search(rf"\b{name}=", example)


def test_threads_of_wsgi_have_the_default_that_the_page_names() -> None:
    assert f"| `threads` | `{THREADS}` |" in OPTIONS


def told_of_run() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(--[\w-]+)` \| (.*?) \|$", OPTIONS, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in rows}


def test_each_option_of_run_has_its_row() -> None:
    known = {param.opts[0]: param for param in cli.commands["run"].params if isinstance(param, click.Option)}
    assert {*told_of_run()} == {*known}
    for name, (default, what, cost, example) in told_of_run().items():
        option = known[name]
        if option.is_flag and option.default is not None:
            assert default == "off" and option.default is not True
        elif option.show_default:
            assert default == f"`{option.default}`", name
        assert what and cost and example.strip("`").startswith(name), name


def test_the_examples_of_run_can_be_given(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("src", "opt"):
        (tmp_path / folder).mkdir()
    for file in (".env", "logging.yaml"):
        (tmp_path / file).touch()
    for *_, example in told_of_run().values():
        arguments = example.strip("`").replace("/opt/gate", "opt").split()
        parent = click.Context(cli, **cli.context_settings)
        with cli.commands["run"].make_context("run", arguments, parent=parent) as context:
            assert context.params


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    assert command_line.PAGE.read_text("utf-8") == command_line.page()


def test_the_pictures_are_up_to_date() -> None:
    assert {path.name: path.read_text("utf-8") for path in FOLDER.iterdir()} == dict(pictures())


def test_every_page_is_in_the_navigation() -> None:
    """The hook adds those of docs/plugins by itself."""
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r"^ +- (\S+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert sorted(named) == sorted(page for page in pages if not page.startswith("plugins/"))


# -- metrics

WORKER = dict.fromkeys(("calls_in_flight", "parked_calls", "configurations"), 0)
EXPOSED = render(Tally(), [WORKER], "0", "")[0].decode()
FAMILIES = dict(re.findall(r"^# TYPE (\S+) (\w+)$", EXPOSED, re.MULTILINE))
METRICS = {name for name, kind in FAMILIES.items() if kind != "histogram"} | {
    f"{name}_{part}" for name, kind in FAMILIES.items() if kind == "histogram" for part in ("bucket", "sum", "count")
}


def expressions() -> dict[str, str]:
    alerts = yaml.safe_load((DOCS / "operate/alerts.yaml").read_text())["groups"][0]["rules"]
    board = json.loads((DOCS / "operate/dashboard.json").read_text())
    found = {rule["alert"]: rule["expr"] for rule in alerts}
    for panel in board["panels"]:
        found |= {f"{panel['title']} {each['refId']}": each["expr"] for each in panel["targets"]}
    return found


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    for name, expression in expressions().items():
        named = {*re.findall(r"\b(asgi_bridge_\w+)", expression)}
        assert named - METRICS == set(), name
        assert named or "up{" in expression, name


def test_alerts_and_dashboard_name_labels_that_there_are() -> None:
    labels = {"le", "instance", "job"}
    source = (ROOT / "asgi_bridge/insight/exposition.py").read_text()
    for row in re.findall(r"labels=\[([^]]*)\]|\", \[([^]]*)\], tally", source):
        labels |= {*re.findall(r'"(\w+)"', " ".join(row))}
    labels |= {"phase", "plugin"}
    for name, expression in expressions().items():
        used = {*re.findall(r"(\w+)\s*(?:!=|=~|=)\s*\"", expression)}
        used |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        assert used - labels == set(), name


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    text = " ".join(expressions().values())
    unused = {name for name in FAMILIES if name.removesuffix("_total") not in text and name != "asgi_bridge_info"}
    assert unused == set()


def test_the_page_of_alerts_has_each_alert() -> None:
    page = (DOCS / "operate/alerts.md").read_text()
    alerts = [name for name in expressions() if name.startswith("AsgiBridge")]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == alerts


def test_panels_do_not_overlap() -> None:
    board = json.loads((DOCS / "operate/dashboard.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len({*places}) == len(places) and len({panel["id"] for panel in board["panels"]}) == len(places)
