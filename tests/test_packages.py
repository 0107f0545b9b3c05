"""What the wheel holds."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "asgi_bridge" / "new" / "templates"
CACHES = {"__pycache__", ".pytest_cache", ".ruff_cache"}
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_each_folder_is_a_package_of_the_wheel() -> None:
    """Folders of data too: setuptools warns of a folder that could be imported, and is not listed."""
    folders = {
        path.parent.relative_to(ROOT)
        for name in ("asgi_bridge", "apps")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and not CACHES.intersection(path.parts)
    }
    assert sorted(SETUPTOOLS["packages"]) == sorted(
        ".".join(folder.parts).replace("apps", "asgi_bridge_apps", 1)
        for folder in folders
        if folder.name.isidentifier() and folder != TEMPLATES.relative_to(ROOT)
    )


def test_each_file_of_a_template_is_data_of_the_wheel() -> None:
    package = TEMPLATES.parent
    data = {path for pattern in SETUPTOOLS["package-data"]["asgi_bridge.new"] for path in package.glob(pattern)}
    there = {path for path in TEMPLATES.rglob("*") if path.is_file() and not CACHES.intersection(path.parts)}
    assert data == there
