"""Builds the compiled core, where Cython and a C compiler are there. All else is in pyproject.toml.

``ASGI_BRIDGE_PURE=1`` builds no compiled core. ``ASGI_BRIDGE_COMPILED=1`` makes it an error if one cannot be built.
"""

import os
import runpy

from setuptools import Extension, setup

compiled = runpy.run_path("asgi_bridge/compiled.py")


def extensions() -> list[Extension]:
    """Return the extension modules; none: pure Python is wanted."""
    wanted = compiled["wanted"]()
    # A call, without its reads and writes, is 5 % quicker with these two. Whoever builds may ask for another level.
    flags = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O3", "-fno-plt"]
    if wanted is False:
        return []
    return [
        Extension(
            f"asgi_bridge.{name}",
            [f"asgi_bridge/{name.replace('.', '/')}.pyx"],
            # a machine without compiler gets pure Python
            optional=not wanted,
            extra_compile_args=flags,
            define_macros=[("ASGI_BRIDGE_SOURCES", f'"{compiled["sources_digest"]()}"')],
        )
        for name in compiled["MODULES"]
    ]


# These are options of Cython's build_ext, which setuptools takes where Cython is there.
options = {
    # bounds and signs are checked by hand, in C's own numbers
    "cython_directives": {"language_level": 3, "cdivision": True, "wraparound": False, "boundscheck": False},
    "cython_c_in_temp": True,
    # the digest is not among what the time stamps of files tell
    "force": True,
}
setup(ext_modules=extensions(), options={"build_ext": options})
