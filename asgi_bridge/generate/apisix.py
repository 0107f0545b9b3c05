"""APISIX's side: the part of its ``config.yaml`` that is about the runner."""

from collections.abc import Sequence
from typing import Any

from .runner import Deployed
from .yaml_text import yaml_of

__all__ = ["STANDALONE", "config_yaml"]

STANDALONE = {"role": "data_plane", "role_data_plane": {"config_provider": "yaml"}}
"""The ``deployment`` of an APISIX that reads its routes from ``conf/apisix.yaml``."""


def config_yaml(runner: Deployed, *, standalone: bool = False, env: Sequence[str] = ()) -> str:
    """Return the part of APISIX's ``config.yaml`` that is about the runner.

    Args:
        runner: The runner. Without a socket path APISIX starts it.
        standalone: True: the text is a whole file, for an APISIX that reads its routes from a file.
        env: Names of the environment variables that APISIX passes on to a runner that it starts.
    """
    parts = ["# APISIX's conf/config.yaml. What is not here has its default.\n"]
    if standalone:
        parts += ["# Routes come from conf/apisix.yaml.\n", yaml_of({"deployment": STANDALONE})]
    else:
        parts += ["# This is a part of it: put it beside the rest of yours.\n"]
    ext_plugin: dict[str, Any]
    if runner.uds is None:
        parts.append("# APISIX starts the runner, gives it a socket, and starts it again when it ends.\n")
        ext_plugin = {"cmd": runner.command}
    else:
        parts.append("# The runner is started by somebody else, and listens on this socket.\n")
        ext_plugin = {"path_for_test": runner.uds}
    parts.append(yaml_of({"ext-plugin": ext_plugin}))
    if env:
        parts.append("# APISIX passes these environment variables on to the runner, and no others.\n")
        parts.append(yaml_of({"nginx_config": {"envs": list(env)}}))
    return "".join(parts)
