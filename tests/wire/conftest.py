"""Run every test of this folder on every codec."""

from collections.abc import Iterator

import pytest

from asgi_bridge import wire
from asgi_bridge.wire import session
from asgi_bridge.wire.codec import CODECS, Codec


@pytest.fixture(params=CODECS, ids=lambda codec: codec.name, scope="module", autouse=True)
def codec(request: pytest.FixtureRequest) -> Iterator[Codec]:
    """Make the package, its sessions and the test module use one codec."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (wire, session, request.module):
            for name in ("decode", "encode"):
                if hasattr(module, name):
                    patch.setattr(module, name, getattr(request.param, name))
        yield request.param
