"""Plugins: the registry, their configuration, and the chains that are built of them."""

from .allow import Allowed, SafePattern
from .build import MAX_CONFIGURATION_BYTES, build_chain
from .chain import Apisix, Chain, Layer, OnionCall, Step, Variables, apisix, upstream
from .plain import PlainCall
from .registry import Bridge, Plugin, load_bridge
from .state import Apart, State
from .store import ConfigurationStore

__all__ = [
    "MAX_CONFIGURATION_BYTES",
    "Allowed",
    "Apart",
    "Apisix",
    "Bridge",
    "Chain",
    "ConfigurationStore",
    "Layer",
    "OnionCall",
    "PlainCall",
    "Plugin",
    "SafePattern",
    "State",
    "Step",
    "Variables",
    "apisix",
    "build_chain",
    "load_bridge",
    "upstream",
]
