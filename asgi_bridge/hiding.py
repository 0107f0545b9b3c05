"""What must not be shown: the passwords, keys and tokens in the configurations of routes.

A value counts as a secret by the name of its field, such as ``password`` or ``api_key``, and a password in a URL by its
place. Log lines and the admin pages show HIDDEN in its place.
"""

import re
from collections import OrderedDict
from typing import Any

__all__ = ["HIDDEN", "SECRETS", "Secrets", "hidden", "looks_secret"]

HIDDEN = "(hidden)"
"""Stands where a secret was."""
SHORTEST = 4
"""Minimum length of a secret that is taken out of log lines, in characters. A shorter one is part of other words."""
LONGEST = 4096
"""Maximum length of such a secret, in characters. A longer one, such as a key in PEM, counts line by line."""
MAX_SECRETS = 10_000
"""Maximum number of secrets that are remembered. The oldest is dropped first."""
MAX_DEPTH = 64
"""Maximum depth to which configurations are searched. Whatever is nested deeper is hidden."""
LONG_KEY = 16
"""Minimum length of the value of a field that is just called ``key``. A shorter one is a name, as in rate limiters."""

_is_secret = re.compile(
    r"pass(word|wd|phrase)?$|passw|secret|token$|tokens$|credential|authorization|api_?keys?$|access_?keys?$"
    r"|private_?keys?|signing_?keys?|encryption_?keys?|hmac|salt|pepper|(^|_)auth$",
    re.ASCII,
).search
_is_key = re.compile(r"(^|_)keys?$").search
_capital = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_url_password = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)(?=@)")


def looks_secret(name: str, value: object = None) -> bool:
    """Return whether a field's value is a secret, by its name.

    Args:
        name: Name of the field, in any spelling: ``api_key``, ``apiKey``, ``API-KEY``.
        value: The value. It decides where a field is just called ``key``.
    """
    word = (_capital.sub("_", name) if not name.isupper() else name).replace("-", "_").lower()
    if _is_secret(word):
        return not isinstance(value, bool)
    return _is_key(word) is not None and not (isinstance(value, str) and len(value) < LONG_KEY)


def hidden(value: Any, depth: int = 0) -> Any:
    """Return a copy of a configuration that may be shown to people.

    Args:
        value: Parsed JSON.
        depth: How deep in the configuration it stands.

    Example::

        >>> hidden({"user": "jack", "password": "x"})
        {'user': 'jack', 'password': '(hidden)'}
    """
    if isinstance(value, str):
        return _url_password.sub(rf"\1:{HIDDEN}", value) if "://" in value else value
    if isinstance(value, dict | list) and depth >= MAX_DEPTH:
        return HIDDEN
    if isinstance(value, dict):
        return {
            key: HIDDEN if looks_secret(key, each) and each not in (None, "", [], {}) else hidden(each, depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [hidden(each, depth + 1) for each in value]
    return value


class Secrets:
    """The secrets of the configurations that this process has read."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, None] = OrderedDict()

    def learn(self, conf: Any) -> None:
        """Remember the secrets in a configuration.

        Args:
            conf: Parsed JSON.
        """
        pending = [(conf, False, 0)]
        while pending:
            value, secret, depth = pending.pop()
            if isinstance(value, str):
                if secret:
                    self._add(value)
                elif "://" in value:
                    for _, password in _url_password.findall(value):
                        self._add(password)
            elif depth >= MAX_DEPTH:
                continue
            elif isinstance(value, dict):
                pending += [(each, secret or looks_secret(key, each), depth + 1) for key, each in value.items()]
            elif isinstance(value, list):
                pending += [(each, secret, depth + 1) for each in value]

    def _add(self, text: str) -> None:
        import json  # here, because each start of a process loads this module early

        parts = [text] if len(text) <= LONGEST and "\n" not in text else text.splitlines()
        for part in parts:
            part = part.strip()
            if len(part) < SHORTEST or part.startswith("-----"):  # first and last line of PEM
                continue
            for spelling in {part, repr(part)[1:-1], json.dumps(part)[1:-1]}:
                self._texts.pop(spelling, None)
                self._texts[spelling] = None
        while len(self._texts) > MAX_SECRETS:
            self._texts.popitem(last=False)

    def forget(self) -> None:
        """Forget all secrets."""
        self._texts.clear()

    def taken_out(self, text: str) -> str:
        """Return `text` with HIDDEN in the place of each secret."""
        if self._texts:
            found = [secret for secret in list(self._texts) if secret in text]
            for secret in sorted(found, key=len, reverse=True):
                text = text.replace(secret, HIDDEN)
        return text


SECRETS = Secrets()
"""The secrets of this process."""
