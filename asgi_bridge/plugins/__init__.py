"""Plugins: what is mounted, its configuration, and the chains that are built of them."""

from .allow import Allowed
from .build import MAX_CONFIGURATION_BYTES, build_chain
from .call import ChainCall
from .chain import Chain
from .extension import Apisix, Variables, apisix, upstream
from .layer import Layer
from .mounted import MountedLifespans
from .patterns import SafePattern
from .plain import PlainCall
from .plugin import Plugin
from .shadow_record import ShadowRun
from .state import Apart, State
from .store import ConfigurationStore
from .twins import use_compiled

__all__ = [
    "MAX_CONFIGURATION_BYTES",
    "Allowed",
    "Apart",
    "Apisix",
    "Chain",
    "ChainCall",
    "ConfigurationStore",
    "Layer",
    "MountedLifespans",
    "PlainCall",
    "Plugin",
    "SafePattern",
    "ShadowRun",
    "State",
    "Variables",
    "apisix",
    "build_chain",
    "upstream",
]

use_compiled()
