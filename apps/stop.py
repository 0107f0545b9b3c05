"""``stop``: answers with a response that the route configures.

The official Python runner has an example of this name, which always gives the same response. The defaults here are that
response.
"""

from typing import Annotated

from pydantic import Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from ._shared.conf import MAX_HEADERS, Conf, EndToEndName, HeaderValue, HeaderValues, Status, Text, most

__all__ = ["StopConf", "stop"]


class StopConf(Conf):
    """What ``stop`` takes."""

    body: Text = Field(default="Hello, Python Runner of APISIX", description="The answer's body.", examples=["gone\n"])
    status: Status = Field(default=201, description="The answer's status.", examples=[410])
    headers: Annotated[dict[EndToEndName, HeaderValue | HeaderValues], *most(MAX_HEADERS)] = Field(
        default={"X-Resp-A6-Runner": "Python"},
        description="The answer's headers; a list of values gives the header once for each. "
        "Without a content-type the body is text/plain.",
    )


def stop(conf: StopConf) -> ASGIApp:
    """Answer every request; none passes.

    Args:
        conf: The route's configuration.
    """
    response = PlainTextResponse(conf.body, status_code=conf.status)
    if any(name.lower() == "content-type" for name in conf.headers):
        del response.headers["content-type"]
    for name, values in conf.headers.items():
        for value in [values] if isinstance(values, str) else values:
            response.headers.append(name, value)
    return response
