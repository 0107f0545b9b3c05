"""Put the compiled way through the layers in the place of the pure one."""

from ..compiled import twin
from . import extension
from .layer import Layer

__all__ = ["use_compiled"]


def use_compiled() -> None:
    """Use the compiled twins, where they are there."""
    compiled = twin("plugins._layers")
    if compiled is not None:
        Layer.begin = compiled.begin  # type: ignore[method-assign]
        extension.pass_on = compiled.pass_on
