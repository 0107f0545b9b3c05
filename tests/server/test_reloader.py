"""What is changed before the first child has read it."""

from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.supervisors.statreload import StatReload

from asgi_bridge.server import reloader
from asgi_bridge.server.reloader import watching_reloader


def nothing(sockets: Any) -> None:
    pass


@pytest.mark.parametrize("kind", ["watchfiles", "stat"])
def test_a_change_right_after_the_start_is_seen(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "stat":
        monkeypatch.setattr(reloader, "ChangeReload", StatReload)
    else:
        pytest.importorskip("watchfiles")
    gate = tmp_path / "gate.py"
    gate.write_text("a = 1")
    config = uvicorn.Config("gate:app", reload=True, reload_dirs=[str(tmp_path)], reload_delay=0.05)
    watching = watching_reloader(config, nothing, [])
    gate.write_text("a = 22")
    found = next(filter(None, watching))
    assert [path.name for path in found] == ["gate.py"]
