"""``scope["state"]``: one object for all layers of a request, beginning with the lifespan states of all of them.

A key that the lifespans of two plugins both give is kept apart: each of the two sees its own value, and nobody else
sees either. Everything else is shared, in both directions, as it is under one server.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

__all__ = ["Apart", "Overlay", "State", "States"]

Plugin = TypeVar("Plugin")
State = MutableMapping[str, Any]
Apart = Mapping[Plugin, tuple[dict[str, Any], Collection[str]]]
"""For a layer: the lifespan state that gives it keys of its own, and these keys."""


class Overlay(MutableMapping[str, Any]):
    """``scope["state"]`` for a layer that keeps some keys apart.

    Args:
        own: What this layer keeps apart.
        shared: The object that all layers share.
    """

    __slots__ = ("_own", "shared")

    def __init__(self, own: dict[str, Any], shared: State) -> None:
        self._own = own
        self.shared = shared

    def __getitem__(self, key: str) -> Any:
        return self._own[key] if key in self._own else self.shared[key]

    def __setitem__(self, key: str, value: Any) -> None:
        (self._own if key in self._own else self.shared)[key] = value

    def __delitem__(self, key: str) -> None:
        del (self._own if key in self._own else self.shared)[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (key for key in self.shared if key not in self._own)

    def __len__(self) -> int:
        return len(self._own) + sum(key not in self._own for key in self.shared)

    def __repr__(self) -> str:
        return repr(dict(self))

    def copy(self) -> dict[str, Any]:
        return dict(self)


class States(Generic[Plugin]):
    """The lifespan states of one chain.

    Args:
        layers: Each layer with its lifespan state, outermost first. Layers with one lifespan have one state.

    Attributes:
        sources: Key → the first layer whose lifespan gives it, and the state of that lifespan.
        conflicts: Two layers, and a key that the lifespans of both give.
        apart: The keys that a layer keeps apart, and the lifespan state that gives them; None: no layer does.
        only: The lifespan state of all layers; None: they have several.
    """

    __slots__ = ("_apart_keys", "_layers", "_states", "apart", "conflicts", "only", "sources")

    def __init__(self, layers: Iterable[tuple[Plugin, dict[str, Any]]]) -> None:
        self._layers = list(layers)
        self.sources: dict[str, tuple[Plugin, dict[str, Any]]] = {}
        self.conflicts: list[tuple[Plugin, Plugin, str]] = []
        for layer, state in self._layers:
            for key in state:
                first, source = self.sources.setdefault(key, (layer, state))
                if source is not state:
                    self.conflicts.append((first, layer, key))
        self._apart_keys = frozenset(key for _, _, key in self.conflicts)
        self.apart = self._keeping_apart(self._apart_keys)
        # The dicts, not what is in them now: a lifespan may go on filling its own. The outermost is last, and wins.
        self._states = list({id(state): state for _, state in reversed(self._layers)}.values())
        self.only: dict[str, Any] | None = self._states[0] if len(self._states) == 1 else None

    def _keeping_apart(self, keys: frozenset[str]) -> Apart[Plugin] | None:
        found = {layer: (state, keys & state.keys()) for layer, state in self._layers if not keys.isdisjoint(state)}
        return found or None

    def begin(self) -> dict[str, Any]:
        """Return the state that a request begins with."""
        if self.only is not None:
            return {**self.only}
        state: dict[str, Any] = {}
        for source in self._states:
            state.update(source)
        for key in self._apart_keys:
            state.pop(key, None)
        return state

    def join(self, state: State, earlier: Iterable["States[Plugin]"]) -> tuple[Apart[Plugin] | None, list[str]]:
        """Add what these lifespans give to the `state` of a request that went through other chains already.

        Args:
            state: Of the request.
            earlier: Those of the other chains.

        Returns:
            What the layers keep apart in this request, and the keys that an earlier chain has of another lifespan.
        """
        others = list(earlier)
        foreign = []
        for key, (_, source) in self.sources.items():
            theirs = [states.sources[key][1] for states in others if key in states.sources]
            if any(other is not source for other in theirs):
                foreign.append(key)
            elif not theirs and key not in self._apart_keys:
                state.setdefault(key, source[key])
        return (self._keeping_apart(self._apart_keys.union(foreign)) if foreign else self.apart), foreign
