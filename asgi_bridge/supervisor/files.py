"""How many files a process may have open. Each connection of the gateway is one."""

import resource

__all__ = ["raise_limit"]

MAX_FILES = 65_536
"""Maximum number of open files of one process."""


def raise_limit() -> None:
    """Allow this process and those it starts as many open files as the system lets them have, MAX_FILES at most.

    The soft limit is 1024 on most systems, which an APISIX with many nginx workers reaches.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
