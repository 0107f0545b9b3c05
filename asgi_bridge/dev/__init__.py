"""``asgi-bridge dev``: runner, gateway, echo upstream and inspector in one command, with reload and a block for each
request."""

from .commands import invitations
from .processes import develop

__all__ = ["develop", "invitations"]
