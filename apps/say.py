"""``say``: answers with a text. Named and configured as the example of the Go runner."""

from pydantic import Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from asgi_bridge import upstream

from ._shared.conf import Conf, Text

__all__ = ["SayConf", "say"]


class SayConf(Conf):
    """What ``say`` takes."""

    body: Text = Field(
        default="",
        description="The answer. Empty: the request goes on as if the plugin were not there.",
        examples=["hello"],
    )


def say(conf: SayConf) -> ASGIApp:
    """Answer with the body, and with a header that names the runner: ``Go`` there, ``Python`` here.

    Args:
        conf: The route's configuration.
    """
    if not conf.body:
        return upstream
    return PlainTextResponse(conf.body, headers={"X-Resp-A6-Runner": "Python"})
