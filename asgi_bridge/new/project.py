"""Makes the folder of a new plugin, out of the folders in ``templates/``.

Each of these is a whole project, whose plugin is called ``my-plugin`` and its module ``my_plugin``. A new project is a
copy with other names.
"""

import keyword
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigurationError
from ..extras import install

__all__ = ["KINDS", "Project", "make_project"]

KINDS: Mapping[str, str] = {
    "middleware": "an ASGI middleware, with keyword arguments",
    "app": "Starlette routes in front of the upstream",
    "fastapi": "the same in FastAPI",
    "flask": "the same in Flask",
    "django": "the same in Django",
    "auth": "API keys from the route's table",
}
"""Kinds of plugins, and what each is."""

MAX_NAME = 40
"""Maximum length of a name in characters."""
_TEMPLATES = Path(__file__).parent / "templates"
_LEFT_OUT = frozenset(("__pycache__", ".pytest_cache", ".ruff_cache"))
_TAKEN = frozenset(("asgi_bridge", "asgi_bridge_apps", "conftest", "tests"))
"""Modules that the project imports, and what it calls its own."""
_is_name = re.compile(rf"(?=.{{1,{MAX_NAME}}}$)[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*").fullmatch
_MODULES = {"fastapi": "fastapi", "flask": "flask", "django": "django"}
"""Kinds, and the packages that they need beside asgi_bridge."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project that was made.

    Attributes:
        folder: Where it is.
        files: Its files, as paths below `folder`.
        missing: Commands that install what it needs and this Python does not have.
    """

    folder: Path
    files: list[Path]
    missing: list[str]


def make_project(name: str, kind: str, parent: Path) -> Project:
    """Make a folder with a plugin, its configuration, routes, tests, pyproject.toml and README.

    Args:
        name: Of the folder and of the plugin. Its module has ``_`` for ``-``.
        kind: One of `KINDS`.
        parent: The folder in which the new one is made.

    Raises:
        ConfigurationError: The name cannot be that of a module, the folder exists already, or it cannot be written.
    """
    folder = parent / _checked_name(name)
    module = name.replace("-", "_")
    if folder.exists() or folder.is_symlink():
        raise ConfigurationError(f"{folder} exists already: take another name, or remove it")
    _check_module(name, module)
    template = _TEMPLATES / kind
    sources = [path for path in template.rglob("*") if path.is_file() and not _LEFT_OUT.intersection(path.parts)]
    files = {Path(_renamed(str(path.relative_to(template)), name, module)): path for path in sources}
    try:
        folder.mkdir()
    except OSError as exc:
        raise ConfigurationError(f"{folder} cannot be made: {exc.strerror}") from None
    try:
        for file, source in files.items():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_renamed(source.read_text("utf-8"), name, module), "utf-8")
    except BaseException as exc:
        with suppress(OSError):
            shutil.rmtree(folder)
        if isinstance(exc, OSError):
            raise ConfigurationError(f"{folder} cannot be written: {exc.strerror}") from None
        raise
    return Project(folder, sorted(files), _missing(kind))


def _renamed(text: str, name: str, module: str) -> str:
    return text.replace("my-plugin", name).replace("my_plugin", module)


def _checked_name(name: str) -> str:
    if _is_name(name):
        return name
    if "/" in name:
        raise ConfigurationError(f"{name} is a path: run the command in the folder where the new one belongs")
    proposal = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")
    example = proposal if _is_name(proposal) else "shop-gate"
    raise ConfigurationError(
        f"{name!r:.200} is no name for a plugin: it has lower-case letters, digits and single hyphens, a letter first, "
        f"and at most {MAX_NAME} characters, such as {example}"
    )


def _check_module(name: str, module: str) -> None:
    """Refuse a name whose module would hide another one, or could not be imported."""
    if keyword.iskeyword(module):
        what = f"{module} is a word of Python's own"
    elif module in sys.stdlib_module_names or module in _TAKEN:
        what = f"the module {module} would hide another one of that name"
    else:
        found = find_spec(module)
        if found is None:
            return
        what = f"the module {module} is installed already" + (f" ({found.origin})" if found.origin else "")
    raise ConfigurationError(f"{name}: {what}: take another name, such as {name}-gate")


def _missing(kind: str) -> list[str]:
    """Return the commands that install what this Python does not have."""
    own = [*([_MODULES[kind]] if kind in _MODULES else []), "pytest"]
    absent = [module for module in own if find_spec(module) is None]
    commands = [] if all(find_spec(module) for module in ("h11", "httpx2", "watchfiles")) else [install("dev")]
    return commands + ([f"pip install {' '.join(absent)}"] if absent else [])
