import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.doctor import Finding, Questions, examine

from ..doubles.waiting import SECONDS

Look = Callable[..., list[Finding]]
CONFIG = Path("conf/config.yaml")
"""APISIX's configuration, in APISIX's folder."""


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of an APISIX, which everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "conf").mkdir(mode=0o755)
        yield home


@pytest.fixture
def look(home: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Examine the configuration with this text, or none. In findings HOME stands for the folder of APISIX."""

    def look(text: str | None = None, **questions: Any) -> list[Finding]:
        if text is not None:
            (home / CONFIG).write_text(text.replace("HOME", str(home)))
            questions["config"] = str(home / CONFIG)
        found = examine(Questions(**{"seconds": SECONDS, **questions}))
        return [
            Finding(each.severity, *(part.replace(str(home), "HOME") for part in (each.where, each.what, each.remedy)))
            for each in found
            if each.where != "asgi_bridge"  # the core in use, which test_command looks at
        ]

    return look
