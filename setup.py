"""Builds the compiled core, where Cython and a C compiler are there. All else is in pyproject.toml.

``ASGI_BRIDGE_PURE=1`` builds no compiled core. ``ASGI_BRIDGE_COMPILED=1`` makes it an error if one cannot be built.
"""

import runpy
from typing import Any

from setuptools import Extension, setup

compiled = runpy.run_path("asgi_bridge/compiled.py")


def extensions() -> list[Any]:
    """Return the extension modules; none: pure Python is wanted, or Cython is not there."""
    wanted = compiled["wanted"]()
    if wanted is False:
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        if wanted:
            raise
        return []
    digest = compiled["sources_digest"]()
    modules = [
        Extension(
            f"asgi_bridge.{name}",
            [f"asgi_bridge/{name.replace('.', '/')}.pyx"],
            # a machine without compiler gets pure Python
            optional=not wanted,
            define_macros=[("ASGI_BRIDGE_SOURCES", f'"{digest}"')],
        )
        for name in compiled["MODULES"]
    ]
    # bounds and signs are checked by hand, in C's own numbers
    directives = {"language_level": 3, "cdivision": True, "wraparound": False, "boundscheck": False}
    return list(cythonize(modules, build_dir="build/cython", compiler_directives=directives, force=True, quiet=True))


# force: the digest is not among what the time stamps of files tell
setup(ext_modules=extensions(), options={"build_ext": {"force": True}})
