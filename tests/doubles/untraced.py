"""The environment of a process that no coverage run traces."""

import os

__all__ = ["untraced"]


def untraced() -> dict[str, str]:
    """Return this process's environment without what makes a new Python note the code that it reaches.

    A traced process is slower, it writes its findings into its folder, and its runner does not fork its first worker.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_"))}
