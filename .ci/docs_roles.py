"""Extension of griffe, which reads docstrings for the manual: roles of reStructuredText become code in Markdown."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|exc):`~?\.?(?:[\w.]+\.)?([\w]+)`")


class Roles(griffe.Extension):
    """Rewrites every docstring: ``:class:`~a.b.C``` is `C`, and ``Example::`` is a line before a block of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^( *)Examples?::$", r"\1**Example**", text, flags=re.MULTILINE)
