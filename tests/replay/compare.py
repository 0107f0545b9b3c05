"""Writes a recorded case, and what happened here, in one form, so that both can be compared."""

import base64
import hashlib
import re
import socket
from typing import Any

from asgi_bridge.wire.messages import HTTPReqCallReq, HTTPRespCallReq, PrepareConfReq

from .cases import latin1
from .client import Response

__all__ = ["Compare"]

_VERSIONS = re.compile(rb"\d{10,}")
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _sorted(headers: Any) -> list[tuple[bytes, bytes | None]]:
    return sorted(((bytes(n), v) for n, v in headers), key=lambda item: item[0])


class Compare:
    """Compares one case.

    Args:
        ports: port in the recording → port here.
        case: as recorded.
    """

    def __init__(self, ports: dict[bytes, bytes], case: dict[str, Any]) -> None:
        # Lua does not keep the order of arguments; the recording does not always mark that
        self.args_order_varies = any((rpc["answer"] or {}).get("args") for rpc in case["rpcs"])
        self.ports = ports

    def value(self, value: bytes | None) -> bytes | None:
        """Return a recorded value with the ports that are used here."""
        if value is None:
            return None
        if value in self.ports:
            return self.ports[value]
        return value.replace(b"127.0.0.1:1981", b"127.0.0.1:" + self.ports[b"1981"])

    def marked(self, value: bytes | None) -> bytes | None:
        """Return a value from here with the recording's mark in place of a random part."""
        return None if value is None else _UUID.sub(b"<uuid#1>", value)

    def pairs(self, entries: Any) -> list[tuple[bytes, bytes | None]]:
        return _sorted((n.encode("latin-1"), self.value(latin1(v))) for n, v in entries)

    def rpc_recorded(self, rpc: dict[str, Any]) -> dict[str, Any]:
        if rpc["type"] == 1:
            conf = rpc["conf"] and [(n.encode("latin-1"), v.encode("latin-1")) for n, v in rpc["conf"]]
            # one case has an empty list; its frame has no vector
            return {"conn": rpc["conn"], "key": rpc["key"].encode("latin-1"), "conf": conf or None}
        common = {
            "conn": rpc["conn"],
            "id": rpc["id"],
            "headers": self.pairs(rpc["headers"]),
            "conf_token": rpc["conf_token"],
            "extra": [
                _digest(self.value(base64.b64decode(e["result_b64"])))
                if isinstance(e["result_b64"], str) and not e.get("volatile")
                else ("present" if e.get("volatile") else _cut(e["result_b64"]))
                for e in rpc["extra"]
                if not e.get("no_reply")
            ],
        }
        for at, asked in enumerate(rpc["extra"]):
            if asked.get("args_order_varies"):
                common["extra"][at] = _sorted_args(base64.b64decode(asked["result_b64"]))
        if rpc["type"] == 2:
            common |= {
                "method": rpc["method"],
                "path": base64.b64decode(rpc["path_b64"]),
                "src_ip": rpc["src_ip"],
                "args": self.pairs(rpc["args"]),
            }
        else:
            common["status"] = rpc["status"]
        return common

    def rpc_here(self, got: dict[str, Any], rpc: dict[str, Any]) -> dict[str, Any]:
        message = got["message"]
        if isinstance(message, PrepareConfReq):
            return {
                "conn": got["conn"],
                "key": _VERSIONS.sub(b"<version>", message.key or b""),
                "conf": message.conf,
            }
        assert isinstance(message, HTTPReqCallReq | HTTPRespCallReq)
        extra: list[Any] = []
        for asked, result in zip(rpc.get("extra", ()), got["extra"], strict=False):
            if asked.get("volatile"):
                extra.append("present" if result else None)
            elif asked.get("args_order_varies"):
                extra.append(_sorted_args(result))
            else:
                extra.append(_digest(self.marked(result)))
        here = {
            "conn": got["conn"],
            "id": message.id,
            "headers": _sorted((n, self.marked(v)) for n, v in message.headers or ()),
            "conf_token": message.conf_token,
            "extra": extra,
        }
        if isinstance(message, HTTPReqCallReq):
            here |= {
                "method": message.method,
                "path": message.path,
                "src_ip": socket.inet_ntoa(message.src_ip or b""),
                "args": _sorted(message.args or ()),
            }
        else:
            here["status"] = message.status
        return here

    def upstream_recorded(self, saw: dict[str, Any]) -> dict[str, Any]:
        if "raw_b64" in saw:
            return {"raw": base64.b64decode(saw["raw_b64"])}
        uri = saw["uri"].encode("latin-1")
        return {
            "method": saw["method"].encode(),
            "uri": _sorted_target(uri) if self.args_order_varies or saw.get("args_order_varies") else uri,
            "headers": _sorted((n.lower().encode("latin-1"), self.value(latin1(v))) for n, v in saw["headers"]),
            "framing": saw["framing"],
            "body": _cut(saw.get("body_b64") or ""),
        }

    def upstream_here(self, saw: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
        if "raw" in saw:
            return {"raw": saw["raw"]}
        uri = saw["uri"]
        return {
            "method": saw["method"],
            "uri": _sorted_target(uri) if self.args_order_varies or recorded.get("args_order_varies") else uri,
            "headers": _sorted((n.lower(), self.marked(v)) for n, v in saw["headers"]),
            "framing": saw["framing"],
            "body": _digest(saw["body"]),
        }

    def client_recorded(self, got: dict[str, Any]) -> dict[str, Any]:
        if got.get("closed"):
            return {"status": None}
        return {
            "status": got["status"],
            "headers": _sorted((n.lower().encode("latin-1"), latin1(v)) for n, v in got["headers"]),
            "body": _cut(got.get("body_b64") or ""),
            "incomplete": got.get("incomplete", False),
            "dated": not got.get("no_date", False),
        }

    def client_here(self, response: Response) -> dict[str, Any]:
        if response.status is None:
            return {"status": None}
        headers = [(n.lower().encode("latin-1"), v) for n, v in response.headers]
        # the time of a response varies, unless the case has set the header itself
        kept = [(n, self.marked(v)) for n, v in headers if n != b"date" or b" 1970 " in v]
        return {
            "status": response.status,
            "headers": _sorted(kept),
            "body": _digest(response.body),
            "incomplete": response.incomplete,
            "dated": any(n == b"date" for n, _ in headers),
        }


def _digest(body: bytes | None) -> Any:
    if body is None or len(body) <= 16000:
        return body
    return len(body), hashlib.sha256(body).hexdigest()


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return value["len"], value["sha256"]
    return None if value is None else _digest(base64.b64decode(value))


def _sorted_args(query: bytes) -> bytes:
    path, question, rest = query.rpartition(b"?")
    return path + question + b"&".join(sorted(rest.split(b"&")))


def _sorted_target(target: bytes) -> bytes:
    return _sorted_args(target) if b"?" in target else target
