"""The compiled core, built with faults, with sanitizers, and for a Python that counts references.

They compile, which takes minutes: ``make fuzz-core`` and ``make fuzz-asan`` run them, for ``CORE_SECONDS`` each. What
they need must be there: nothing is skipped.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .builds import ROOT, Build

SEEDED = sorted((ROOT / "tests" / "seeded").glob("*.patch"))
"""Changes of the sources, each with a fault that somebody might make."""
CORE_SECONDS = os.environ.get("CORE_SECONDS", "60")

pytestmark = pytest.mark.builds


PROGRAMS = {
    "tests.core.differential": ("_decode", "entries", "names", "_request_scope"),
    "tests.core.way_back": ("_encode", "_headers", "lists"),
    "tests.core.calls": (
        "_unread",
        "_session",
        "_request_call",
        "_asking",
        "_later",
        "_layers",
        "_chains",
        "_answers",
        "_call_tasks",
        "_connection",
        "_link",
        "items",
        "slots",
    ),
}
"""What compares the compiled core with pure Python (messages and scopes; answers; whole calls), and what each tries."""


def program_for(patch: Path) -> str:
    """Return what finds the fault of a patch. A patch may begin with its name, where its source is in two programs."""
    named = re.match(r"found by (\S+)$", patch.read_text(), re.MULTILINE)
    if named:
        return named[1]
    (source,) = re.findall(r"^\+\+\+ .*/(\w+)\.p[yx][xd]", patch.read_text(), re.MULTILINE)
    return next(program for program, sources in PROGRAMS.items() if source in sources)


def test_there_are_faults_to_find() -> None:
    assert len(SEEDED) >= 4


FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"


def sanitized() -> dict[str, str]:
    """Return what the environment of a program needs whose extension modules were built with `FLAGS`."""
    commands = [("cc", f"-print-file-name=lib{name}.so") for name in ("asan", "ubsan")]
    found = [subprocess.run(each, capture_output=True, text=True, check=True).stdout.strip() for each in commands]
    return {
        "LD_PRELOAD": " ".join(found),
        "PYTHONMALLOC": "malloc",  # each object in a place of its own, with guards around it
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter itself keeps much until it ends
    }


@pytest.mark.parametrize("patch", SEEDED, ids=lambda path: path.stem)
def test_a_fault_is_found(patch: Path, tmp_path: Path) -> None:
    """Some faults read outside of a buffer and then refuse what they have read: only a sanitizer sees these."""
    with_sanitizers = patch.stem.endswith("-sanitized")
    build = Build(tmp_path / "copy", patch=patch, flags=FLAGS if with_sanitizers else "-O0")
    done = build.run("-m", program_for(patch), "1800", variables=sanitized() if with_sanitizers else {})
    print(f"{patch.stem}: {done.stdout.strip()} exit code {done.returncode}")
    # AddressSanitizer and UBSan each have words of their own
    signs = ("AddressSanitizer", "runtime error") if with_sanitizers else ("compiled: ",)
    found = any(sign in done.stderr for sign in signs)
    assert done.returncode < 0 or (done.returncode == 1 and found), done.stdout + done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_difference_in_a_long_run(program: str, tmp_path: Path) -> None:
    done = Build(tmp_path / "copy").run("-m", program, CORE_SECONDS)
    print(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_sanitizers_find_nothing(program: str, tmp_path: Path) -> None:
    done = Build(tmp_path / "copy", flags=FLAGS).run("-m", program, CORE_SECONDS, variables=sanitized())
    print(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_python_for_debugging_counts_no_reference_too_much(tmp_path: Path) -> None:
    found = [shutil.which(name) for name in (f"python3.{sys.version_info[1]}-dbg", "python3-dbg")]
    python = next(filter(None, found), None)
    assert python is not None, "no Python for debugging: apt-get install python3-dbg"
    # since Python 3.8 it can load the compiled modules of the packages there, if it is of the same version
    search = sorted({sysconfig.get_path(name) for name in ("purelib", "platlib")})
    done = Build(tmp_path / "copy", python=python, search=search).run("-m", "tests.core.references")
    print(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^\d+ rounds", done.stdout, re.MULTILINE)) == 2
