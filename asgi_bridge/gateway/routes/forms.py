"""The forms in which people keep APISIX's routes, told apart by what is in the file."""

from collections.abc import Mapping
from typing import Any

from .adc import is_adc, read_adc
from .admin import read_admin
from .kubernetes import is_kubernetes, read_kubernetes
from .places import LinedMapping, Part, Place, Report
from .schema import SECTIONS

__all__ = ["translated"]


def translated(documents: list[Any], top: Place, report: Report) -> LinedMapping | None:
    """Turn what a file holds into the sections of an ``apisix.yaml``.

    Args:
        documents: The file's YAML documents, or its JSON value; none of them is null.
        top: Place of the file.
        report: Takes what is found.

    Returns:
        None: the file is an ``apisix.yaml`` itself.

    Raises:
        Misplaced: Something is not as the file's form has it.
    """
    if any(map(is_kubernetes, documents)):
        return read_kubernetes([Part(each, top) for each in documents], report)
    if len(documents) > 1:
        report.remark(top, "the file has several YAML documents, and APISIX reads the first one only")
    part = Part(documents[0] if documents else {}, top)
    if is_adc(part.value):
        return read_adc(part, report)
    if not isinstance(part.value, Mapping) or not any(isinstance(part.get(name), list) for name in SECTIONS):
        sections = read_admin(part)
        if sections is not None:
            return sections
    if "openapi" in part:
        raise top.wrong("this is an OpenAPI document; import it into a gateway, and take the routes from its Admin API")
    return None
