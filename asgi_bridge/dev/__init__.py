"""``asgi-bridge dev``: runner, gateway and an echo upstream in one command, with reload and a line for each call."""

from .calls import explain
from .commands import invitations
from .processes import develop

__all__ = ["develop", "explain", "invitations"]
