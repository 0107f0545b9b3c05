"""Bodies that are looked at: their size, and their beginning."""

import base64
import hashlib
from typing import Any

__all__ = ["BODY_LIMIT", "Body"]

BODY_LIMIT = 128 * 1024
"""Number of bytes of a body that are kept."""


class Body:
    """A body, of which only the first BODY_LIMIT bytes are kept. Two bodies are equal if all their bytes are.

    Attributes:
        size: Its size in bytes.
    """

    __slots__ = ("_hash", "_parts", "size")

    def __init__(self, content: bytes | bytearray | memoryview = b"") -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._hash: Any = None
        if content:
            self.add(content)

    def add(self, part: bytes | bytearray | memoryview) -> None:
        """Add the bytes of its next part."""
        part = bytes(part)
        self.size += len(part)
        if self._hash is None and self.size <= BODY_LIMIT:
            self._parts.append(part)
            return
        if self._hash is None:
            self._hash = hashlib.blake2b(self.kept, digest_size=16)
            self._parts.append(part[: BODY_LIMIT - len(self.kept)])
        self._hash.update(part)

    @property
    def kept(self) -> bytes:
        """Its first bytes."""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    @property
    def cut(self) -> bool:
        """Whether it is longer than what is kept."""
        return self.size > len(self.kept)

    @property
    def key(self) -> tuple[int, bytes]:
        """What tells it from other bodies."""
        return self.size, self.kept if self._hash is None else self._hash.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON has; :meth:`of_json` reads them."""
        found: dict[str, Any] = {"size": self.size, "base64": base64.b64encode(self.kept).decode()}
        if self._hash is not None:
            found["digest"] = self._hash.hexdigest()
        return found

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Body":
        """Return the body that :meth:`as_json` has written. It cannot be added to."""
        found = cls()
        found.size, found._parts = int(value["size"]), [base64.b64decode(value["base64"])]
        if "digest" in value:
            found._hash = _Digest(bytes.fromhex(value["digest"]))
        return found


class _Digest:
    """A digest that was worked out elsewhere."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def digest(self) -> bytes:
        return self._value

    def hexdigest(self) -> str:
        return self._value.hex()
