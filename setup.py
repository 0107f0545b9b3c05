"""Builds the compiled core, where Cython and a C compiler are there. All else is in pyproject.toml.

``ASGI_BRIDGE_PURE=1`` builds no compiled core. ``ASGI_BRIDGE_COMPILED=1`` makes it an error if one cannot be built.
"""

import runpy

from setuptools import Extension, setup

compiled = runpy.run_path("asgi_bridge/compiled.py")


def extensions() -> list[Extension]:
    """Return the extension modules; none: pure Python is wanted."""
    wanted = compiled["wanted"]()
    if wanted is False:
        return []
    return [
        Extension(
            f"asgi_bridge.{name}",
            [f"asgi_bridge/{name.replace('.', '/')}.pyx"],
            # a machine without compiler gets pure Python
            optional=not wanted,
            # both together save 5 % of a call without its reads and writes; compilers of other systems ignore the last
            extra_compile_args=["-O3", "-fno-plt"],
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
