"""All examinations, in the order in which one leads to the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..compiled import core_in_use
from ..errors import ConfigurationError
from .findings import Finding, good, warning
from .users import find_user
from .versions import check_version, found_version
from .way_in import check_way_in

__all__ = ["Questions", "examine"]

WORKER_USER = "nobody"
"""User of nginx's workers where neither the operator nor ``nginx_config.user`` names one."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What the operator wants to know.

    Attributes:
        socket: Path of the runner's socket; None: the path that APISIX's configuration names.
        config: Path of APISIX's ``config.yaml``; None: it is not looked at.
        version: APISIX's version; None: it is looked for beside `config`.
        worker_user: Name of the user that nginx's workers run as; None: that of `config`, or nobody.
        variables: Names of the environment variables that the plugins need.
        plugins: Names of plugins to prepare, each with its configuration.
        seconds: Time that the runner has for each answer.
    """

    socket: str | None = None
    config: str | None = None
    version: str | None = None
    worker_user: str | None = None
    variables: Sequence[str] = ()
    plugins: Sequence[tuple[str, str]] = ()
    seconds: float = 5.0


def examine(questions: Questions) -> Iterator[Finding]:
    """Look at APISIX's configuration, its version, the socket and the runner behind it.

    Args:
        questions: What to look at.

    Returns:
        The findings, as they are made.

    Raises:
        ConfigurationError: There is nothing to look at, a user or version cannot be read, or the configuration is no
            YAML.
    """
    path, user, asks_origin = questions.socket, questions.worker_user, False
    if path is None and questions.config is None and questions.version is None:
        raise ConfigurationError("nothing to look at: give --uds PATH or --apisix-config FILE")
    if questions.config is not None:
        from .config import ApisixConfig

        config = ApisixConfig(questions.config)
        yield from config.check(path, questions.variables)
        path = path or config.socket
        user = user or config.user
        asks_origin = config.asks_origin
    version = questions.version
    if version is None and questions.config is not None:
        version = found_version(Path(questions.config))
    if version is not None:
        yield from check_version(version, asks_origin)
    if path is not None:
        way_in = list(check_way_in(path, find_user(user or WORKER_USER)))
        yield from way_in
        if way_in[-1].severity == "ok":
            from .handshake import shake_hands

            yield from shake_hands(path, questions.plugins, questions.seconds)
            yield _core()


def _core() -> Finding:
    """Tell whether a runner of this installation and environment uses the compiled core. Pure Python is no mistake."""
    core = core_in_use()
    if "stale" in core:
        return warning("asgi_bridge", f"core: {core}", "compile it again: pip install -e .")
    return good("asgi_bridge", f"core: {core}")
