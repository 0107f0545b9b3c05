"""Hooks of mkdocs, for what the site has and a code host does not need.

A page of docs/ may link to a file of the repository that stands outside of docs/. On a code host such a link leads to
the file. In the site it has to lead somewhere too: Markdown files become pages of the site, beside the manual's own,
and other files are copied. A link to a folder leads to its README, or to a list of its files.

The navigation lists the pages of the ready-made plugins.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BESIDE = "repository"
"""Folder of the site with the files that stand outside of docs/."""
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_config(config: MkDocsConfig, **_: Any) -> MkDocsConfig:
    """Add the pages of the ready-made plugins to the navigation. Whoever adds a plugin need not think of it."""
    pages = sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "plugins").glob("*.md"))
    if pages and config.nav is not None:
        pages.sort(key=lambda page: not page.endswith("README.md"))
        place = next(number for number, entry in enumerate(config.nav) if entry == "options.md") + 1
        config.nav.insert(place, {"Ready-made plugins": pages})
    return config


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the files outside of docs/ that pages link to, and those that these link to."""
    waiting = [DOCS / file.src_uri for file in files if file.src_uri.endswith(".md")]
    added: set[Path] = set()
    while waiting:
        page = waiting.pop()
        for target in _targets(page):
            if target in added or target.is_relative_to(DOCS):
                continue
            added.add(target)
            uri = _uri(target)
            if target.suffix == ".md":
                if target.exists():
                    waiting.append(target)
                    content = target.read_text("utf-8")
                else:
                    content = _listing(target.parent)
                    for each in _files_of(target.parent):
                        files.append(File.generated(config, _uri(each), abs_src_path=str(each)))
                files.append(File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
            else:
                files.append(File.generated(config, uri, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page to where their targets stand in the site."""
    source = page.file.src_uri
    outside = source.removeprefix(f"{BESIDE}/")
    real = ROOT / outside if outside != source else DOCS / source

    def rewritten(match: re.Match[str]) -> str:
        target = _target(real, match[2])
        if target is None:
            return match[0]
        uri = target.relative_to(DOCS).as_posix() if target.is_relative_to(DOCS) else _uri(target)
        return f"{match[1]}{os.path.relpath(uri, Path(source).parent.as_posix())}{match[3]}"

    return _LINK.sub(rewritten, markdown)


def _uri(path: Path) -> str:
    return f"{BESIDE}/{path.relative_to(ROOT).as_posix()}"


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _listing(folder: Path) -> str:
    lines = [f"- [{path.name}]({path.name})\n" for path in _files_of(folder)]
    return f"# {folder.relative_to(ROOT)}\n\n" + "".join(lines)


def _targets(page: Path) -> list[Path]:
    if not page.exists():
        return []
    found = (_target(page, match[2]) for match in _LINK.finditer(page.read_text("utf-8")))
    return [target for target in found if target is not None]


def _target(page: Path, link: str) -> Path | None:
    """Return the file that a link leads to; None: it leads to no file of the repository."""
    if re.match(r"[a-z]+:", link):
        return None
    target = Path(os.path.normpath(page.parent / link))
    if not target.exists() or not target.is_relative_to(ROOT):
        return None
    return target / "README.md" if target.is_dir() else target
