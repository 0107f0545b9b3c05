"""The forms in which people keep APISIX's routes, told apart by what is in the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .adc import is_adc, read_adc
from .admin import read_admin
from .kubernetes import is_kubernetes, read_kubernetes
from .places import Part, Place, Report
from .schema import SECTIONS
from .text import Text

__all__ = ["Form", "standalone"]


@dataclass(frozen=True)
class Form:
    """Routes in the form of ``apisix.yaml``.

    Attributes:
        data: the mapping of its sections.
        name: of the form that it was read from; empty: it is ``apisix.yaml`` itself.
    """

    data: Any
    name: str


def standalone(text: Text, top: Place, report: Report) -> Form:
    """Turn what a file holds into the form of ``apisix.yaml``.

    Args:
        text: the file.
        top: its place.
        report: takes what is found.

    Raises:
        Misplaced: something is not as the file's form has it.
    """
    documents = [each for each in text.documents if each is not None]
    if any(map(is_kubernetes, documents)):
        return Form(read_kubernetes(documents, top, report), "Kubernetes resources")
    if len(documents) > 1:
        report.remark(top, "the file has several YAML documents, and APISIX reads the first one only")
    data = documents[0] if documents else {}
    if is_adc(data):
        return Form(read_adc(Part(data, top), report), "ADC's YAML")
    if not isinstance(data, Mapping) or not any(isinstance(data.get(name), list) for name in SECTIONS):
        sections = read_admin(Part(data, top))
        if sections:
            return Form(sections, "the Admin API's JSON")
    if isinstance(data, Mapping) and "openapi" in data:
        raise top.wrong("this is an OpenAPI document; import it into a gateway, and take the routes from its Admin API")
    return Form(data, "")
