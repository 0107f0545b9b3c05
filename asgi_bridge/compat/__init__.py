"""``asgi-bridge compat``: tries one plugin on probe requests, and says what it does and in which phase to mount it.

Example::

    subject, findings = examine(load("starlette.middleware.gzip:GZipMiddleware"), "{}")
    phase, reason = advise(findings)
"""

from .findings import Findings, advise
from .probes import PROBES
from .reporting import report
from .subject import Subject, examine, load, missing_objects

__all__ = ["PROBES", "Findings", "Subject", "advise", "examine", "load", "missing_objects", "report"]
