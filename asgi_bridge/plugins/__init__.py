"""Plugins: the registry, their configuration, and the chains that are built of them."""

from .allow import Allowed, SafePattern
from .build import build_chain
from .chain import Apisix, Chain, Layer, OnionCall, Step, Variables, apisix, upstream
from .plain import PlainCall
from .registry import Bridge, Plugin, load_bridge
from .store import ConfigurationStore

__all__ = [
    "Allowed",
    "Apisix",
    "Bridge",
    "Chain",
    "ConfigurationStore",
    "Layer",
    "OnionCall",
    "PlainCall",
    "Plugin",
    "SafePattern",
    "Step",
    "Variables",
    "apisix",
    "build_chain",
    "load_bridge",
    "upstream",
]
