"""The times of a hand-over, in seconds."""

__all__ = [
    "END_SECONDS",
    "HANDOVER_SECONDS",
    "LATE_SECONDS",
    "LOCK_SECONDS",
    "OWNER_SECONDS",
    "SEEK_SECONDS",
    "SUCCESSOR_SECONDS",
    "TICK_SECONDS",
]

SUCCESSOR_SECONDS = 0.55
"""Seconds after SIGTERM in which an owner without a successor serves on, where APISIX has started the runner. At a
reload APISIX starts the successor at the moment of the signal."""
HANDOVER_SECONDS = 0.8
"""An owner with a successor hands over this many seconds after SIGTERM, even if the successor is not READY."""
END_SECONDS = 0.95
"""A runner that APISIX has started ends this many seconds after SIGTERM. APISIX sends SIGKILL after one second."""
LATE_SECONDS = END_SECONDS - 0.03
"""Seconds after SIGTERM until which a runner that APISIX has started holds its sockets for a successor that is late."""
SEEK_SECONDS = 1.0
"""Seconds that a runner looks for the control socket of an owner that lives. One whose successor was killed puts it
back within this time. After it the runner takes the path as from an owner that cannot hand over."""
OWNER_SECONDS = 10.0
"""Seconds that an owner has to answer READY. One whose event loop hangs longer is not waited for."""
TICK_SECONDS = 0.05
"""Seconds between two looks, where nothing wakes the process."""
LOCK_SECONDS = 3.0
"""Seconds to wait for the lock at the start. The others hold it for milliseconds; one of them may be stopped."""
