"""Passing a request on, in the words of a framework: what to change about it, and a response that does it."""

from .change import Change, Values
from .pass_on import pass_on
from .response import PassOn

__all__ = ["Change", "PassOn", "Values", "pass_on"]
