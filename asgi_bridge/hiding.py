"""What must not be shown: passwords, keys and tokens, by the names of their fields, and where they are taken out.

The names of secrets stand here alone. :func:`looks_secret` judges the fields of configurations: their values are not
shown (:func:`hidden`), and log lines show HIDDEN in their place (SECRETS). :func:`is_secret_name` judges the headers,
arguments and fields of traffic, for recordings.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

__all__ = [
    "HIDDEN",
    "LONG_KEY",
    "SECRETS",
    "Secrets",
    "hidden",
    "is_secret_name",
    "is_secret_text",
    "looks_secret",
    "secret_fields",
]

HIDDEN = "(hidden)"
"""Stands where a secret was."""
SHORTEST = 4
"""Minimum length of a secret that is taken out of log lines, in characters. A shorter one is part of all texts."""
LONG = 8
"""Minimum length of a secret that is taken out wherever it stands, in characters. A shorter one may be part of an
ordinary word, so it is taken out only where it is a whole word."""
LONGEST = 1024
"""Maximum length of a remembered text, in characters. A longer secret is remembered in parts."""
MAX_SECRETS = 10_000
"""Maximum number of texts that are remembered. The oldest is dropped first."""
MAX_DEPTH = 64
"""Maximum depth to which configurations are searched. Whatever is nested deeper is hidden."""
LONG_KEY = 16
"""Minimum length of the value of a field that is just called ``key``. A shorter one is a name, as in rate limiters."""

_ANYWHERE = "secret|passw|passphrase|passcode|pwd|credential"
"""Parts of names that tell a secret wherever they stand."""
_KEYS = "token|api_?key|access_?key|private_?key|jwt|bearer"
"""Parts of names that tell a secret in traffic, and in a configuration at the end of a name."""
_in_traffic = re.compile(rf"{_ANYWHERE}|{_KEYS}|authorization|signature|session|cookie|^(sig|key|auth|otp|sid)$").search
_in_configuration = re.compile(
    rf"{_ANYWHERE}|({_KEYS}|authorization|(signing|encryption|shared|hmac)_?key|(^|_)(pass|hmac|salt|pepper))s?$"
).search
_about_a_secret = re.compile(r"_(header|name|file|path|url|uri|type|prefix|lifetime)s?$").search
"""Ends of names that tell something about a secret, but not the secret: ``token_header``."""
_is_key = re.compile(r"(^|_)keys?$").search
_is_auth = re.compile(r"(^|_)auth$").search
_capital = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_url_password = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)(?=@)")
_ends_in_escape = re.compile(r"(\\[abfnrtv]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|%[0-9a-fA-F]{2})$").search
_ESCAPE = 6
"""Maximum length of an escape sequence, in characters."""


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Return whether a header, an argument, a cookie or a field of a body with this name is a secret.

    Args:
        name: The name, in any spelling: ``X-Api-Key``, ``x_api_key``.
    """
    return _in_traffic(name.lower().replace("-", "_")) is not None


def looks_secret(name: str, value: object = None) -> bool:
    """Return whether a field of a configuration is a secret, by its name.

    Args:
        name: Name of the field, in any spelling: ``api_key``, ``apiKey``, ``API-KEY``.
        value: The value. It decides where a field is just called ``key`` or ``auth``.
    """
    word = (_capital.sub("_", name) if not name.isupper() else name).replace("-", "_").lower()
    if isinstance(value, bool) or _about_a_secret(word):
        return False
    if _in_configuration(word):
        return True
    if _is_auth(word):
        return not isinstance(value, dict | list)
    return _is_key(word) is not None and not (isinstance(value, str) and len(value) < LONG_KEY)


def is_secret_text(text: str) -> bool:
    """Return whether a text of a configuration is a secret whatever its field is called: a private key in PEM."""
    return "PRIVATE KEY-----" in text


def secret_fields(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of a plugin's configuration that its JSON Schema marks as secrets, as pydantic's SecretStr.

    Args:
        schema: The JSON Schema.

    Returns:
        Their names, at whatever depth. For an object whose values are secrets it is the name of the object.
    """
    definitions = schema.get("$defs", {})
    found = set()

    def walk(part: Any, field: str | None, within: tuple[str, ...]) -> None:
        if isinstance(part, list):
            for each in part:
                walk(each, field, within)
        if not isinstance(part, Mapping):
            return
        if field is not None and (part.get("writeOnly") is True or part.get("format") == "password"):
            found.add(field)
        name = str(part.get("$ref", "")).rpartition("/")[2]
        if name in definitions and name not in within:
            walk(definitions[name], field, (*within, name))
        for key, each in part.items():
            if key == "properties" and isinstance(each, Mapping):
                for named, property_ in each.items():
                    walk(property_, named, within)
            elif key != "$defs":
                walk(each, field, within)

    walk(schema, None, ())
    return frozenset(found)


def hidden(value: Any, fields: Collection[str] = (), depth: int = 0) -> Any:
    """Return a copy of a configuration that may be shown to people.

    Args:
        value: Parsed JSON.
        fields: Names of the fields that are secrets, beside those that look like it.
        depth: How deep in the configuration it stands.

    Example::

        >>> hidden({"user": "jack", "password": "x"})
        {'user': 'jack', 'password': '(hidden)'}
    """
    if isinstance(value, str):
        if is_secret_text(value):
            return HIDDEN
        return _url_password.sub(rf"\1:{HIDDEN}", value) if "://" in value else value
    if isinstance(value, dict | list) and depth >= MAX_DEPTH:
        return HIDDEN
    if isinstance(value, dict):
        return {
            key: HIDDEN
            if (key in fields or looks_secret(key, each)) and each not in (None, "", [], {})
            else hidden(each, fields, depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [hidden(each, fields, depth + 1) for each in value]
    return value


class Secrets:
    """The secrets of the configurations that this process has read.

    Taking them out of a line costs the same for one secret and for MAX_SECRETS: the first characters of a secret lead
    to the lengths of those that begin so, and a set says whether the text of this length is one.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all secrets."""
        self._texts: OrderedDict[str, None] = OrderedDict()
        self._lengths: dict[str, Counter[int]] = {}
        # the characters at the first places of all secrets; and their number when the pattern was made that finds them
        self._chars: list[set[str]] = [set() for _ in range(SHORTEST)]
        self._beginnings = 0, re.compile("")

    def learn(self, conf: Any, fields: Collection[str] = ()) -> None:
        """Remember the secrets in a configuration.

        Args:
            conf: Parsed JSON.
            fields: Names of the fields that are secrets, beside those that look like it.
        """
        pending = [(conf, False, 0)]
        while pending:
            value, secret, depth = pending.pop()
            if isinstance(value, str):
                if secret or is_secret_text(value):
                    self._add(value)
                elif "://" in value:
                    for _, password in _url_password.findall(value):
                        self._add(password)
            elif depth >= MAX_DEPTH:
                continue
            elif isinstance(value, dict):
                pending += [
                    (each, secret or key in fields or looks_secret(key, each), depth + 1) for key, each in value.items()
                ]
            elif isinstance(value, list):
                pending += [(each, secret, depth + 1) for each in value]

    def _add(self, text: str) -> None:
        """Remember a secret line by line, in each spelling that log lines may have."""
        import json  # here, because each start of a process loads this module early

        for line in map(str.strip, text.splitlines()):
            if line.startswith("-----"):  # first and last line of PEM
                continue
            for spelling in {line, repr(line)[1:-1], json.dumps(line)[1:-1]}:
                for start in range(0, len(spelling), LONGEST):
                    self._remember(spelling[start : start + LONGEST])
                if len(spelling) > LONGEST:
                    self._remember(spelling[-LONGEST:])  # the last part may be short
        while len(self._texts) > MAX_SECRETS:
            oldest, _ = self._texts.popitem(last=False)
            lengths = self._lengths[oldest[:SHORTEST]]
            lengths[len(oldest)] -= 1
            if not lengths[len(oldest)]:
                del lengths[len(oldest)]
            if not lengths:
                del self._lengths[oldest[:SHORTEST]]

    def _remember(self, text: str) -> None:
        if len(text) < SHORTEST:
            return
        if text in self._texts:
            self._texts.move_to_end(text)
            return
        self._texts[text] = None
        self._lengths.setdefault(text[:SHORTEST], Counter())[len(text)] += 1
        for chars, char in zip(self._chars, text, strict=False):
            chars.add(char)

    def taken_out(self, text: str) -> str:
        """Return `text` with HIDDEN in the place of each secret.

        A secret of LONG or more characters is taken out wherever it stands, a shorter one where it is a whole word.
        """
        first = self._pattern().search(text) if self._texts else None
        if first is None:
            return text
        lengths = self._lengths
        starts = range(first.start(), len(text) - SHORTEST + 1)
        parts: list[str] = []
        shown = end = 0  # up to where `text` is in `parts`, and where the last secret ends
        for start in [each for each in starts if text[each : each + SHORTEST] in lengths]:
            # a list of its own: another thread may remember a secret meanwhile
            for length in sorted(lengths.get(text[start : start + SHORTEST], ()), reverse=True):
                stop = start + length
                if text[start:stop] not in self._texts or (length < LONG and not _is_word(text, start, stop)):
                    continue
                if not parts or start > end:
                    parts += [text[shown:start], HIDDEN]
                shown = end = max(end, stop)
                break
        return "".join([*parts, text[shown:]]) if parts else text

    def _pattern(self) -> re.Pattern[str]:
        """Return a pattern that finds where a secret may begin. In most lines it finds nothing, if secrets are few."""
        made, pattern = self._beginnings
        number = sum(map(len, self._chars))
        if made != number:
            first, *others = ("[" + "".join(map(re.escape, list(chars))) + "]" for chars in self._chars)
            pattern = re.compile(f"{first}(?={''.join(others)})")
            self._beginnings = number, pattern
        return pattern


def _is_word(text: str, start: int, stop: int) -> bool:
    """Whether this part of `text` is a whole word: no letter, digit or underscore continues it."""
    before = start > 0 and _continues(text[start - 1], text[start])
    if before and _ends_in_escape(text[max(0, start - _ESCAPE) : start]):
        before = False
    return not before and not (stop < len(text) and _continues(text[stop], text[stop - 1]))


def _continues(outer: str, inner: str) -> bool:
    return (outer.isalnum() or outer == "_") and (inner.isalnum() or inner == "_")


SECRETS = Secrets()
"""The secrets of this process."""
