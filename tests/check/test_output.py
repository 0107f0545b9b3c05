"""The three forms in which findings are printed."""

import json

import pytest

from asgi_bridge.check import Finding
from asgi_bridge.check.output import FORMATS, count

ERROR = Finding("error", "r", "say", "conf/a,b:1%.yaml:12", "route 'r': 100% wrong\nin two lines", 12, "body")
WARNING = Finding("warning", None, None, "<stdin>:3", "strange", 3)
NOTE = Finding("note", None, None, "", "look at a")
NOWHERE = Finding("error", None, None, "", "lost")


def test_counts() -> None:
    assert [count(each) for each in ([], [WARNING], [ERROR, WARNING, NOTE, NOWHERE])] == [(0, 0), (0, 1), (2, 1)]


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        (
            "text",
            [
                "conf/a,b:1%.yaml:12: error: route 'r': 100% wrong\nin two lines",
                "<stdin>:3: warning: strange",
                "error: lost",
                "note: look at a",
                "2 errors, 1 warning",
            ],
        ),
        (
            "github",
            [
                "::error title=asgi-bridge check,file=conf/a%2Cb%3A1%25.yaml,line=12::"
                "route 'r': 100%25 wrong%0Ain two lines",
                "::warning title=asgi-bridge check::<stdin>:3: strange",
                "::error title=asgi-bridge check::lost",
                "::notice title=asgi-bridge check::look at a",
                "2 errors, 1 warning",
            ],
        ),
    ],
)
def test_lines(form: str, lines: list[str]) -> None:
    assert [*FORMATS[form]([ERROR, WARNING, NOWHERE, NOTE])] == lines


def test_json() -> None:
    (text,) = FORMATS["json"]([ERROR, NOWHERE])
    assert json.loads(text) == {
        "errors": 2,
        "warnings": 0,
        "findings": [
            {
                "severity": "error",
                "file": "conf/a,b:1%.yaml",
                "line": 12,
                "route": "r",
                "plugin": "say",
                "field": "body",
                "message": "route 'r': 100% wrong\nin two lines",
            },
            {
                "severity": "error",
                "file": None,
                "line": None,
                "route": None,
                "plugin": None,
                "field": None,
                "message": "lost",
            },
        ],
    }


@pytest.mark.parametrize(("form", "line"), [("text", "0 errors, 0 warnings"), ("github", "0 errors, 0 warnings")])
def test_nothing_is_wrong(form: str, line: str) -> None:
    assert [*FORMATS[form]([])] == [line]
