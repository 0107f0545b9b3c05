"""What the wheel holds."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_each_folder_with_code_is_a_package_of_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "asgi_bridge").rglob("*.py")}
    assert sorted(listed) == sorted([".".join(folder.parts) for folder in folders] + ["asgi_bridge_apps"])
