"""How many processor cores this process may use."""

import contextlib
import math
import os

__all__ = ["usable_cores"]

CPU_MAX = "/sys/fs/cgroup/cpu.max"
"""File of the control group with the processor time that a container may use, in microseconds a period."""


def usable_cores() -> int:
    """Return the number of cores that the system and the container leave to this process, at least 1."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError), open(CPU_MAX, encoding="ascii") as file:
        quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)
