"""The contents of the frames in ``frames/``.

``python -m benchmarks.frames`` checks the files; with ``--write`` it makes missing ones. `benchmarks.shapes` makes
``shapes.bin.gz``.
"""

import json
import sys
from pathlib import Path

from asgi_bridge.wire import (
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    Role,
    Stop,
    TextEntry,
    decode,
    encode,
)

FOLDER = Path(__file__).parent / "frames"

# Values that are found again in the bytes of a frame. The load generator writes its own there.
ID = 0x6A4B2C0F
TOKEN = 0x7A5B3C1D


def prepare(name: bytes, conf: bytes = b'{"x":1}', key: bytes | None = None) -> PrepareConfReq:
    return PrepareConfReq([(name, conf)], key or name)


HEADERS: list[TextEntry] = [
    (b"host", b"shop.example.com"),
    (
        b"user-agent",
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    ),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    (b"accept-language", b"en-US,en;q=0.9,de;q=0.7"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"connection", b"keep-alive"),
    (b"referer", b"https://shop.example.com/catalog/shoes?page=2"),
    (b"cookie", b"session=eyJ1aWQiOjQyfQ.ZmFrZXNpZ25hdHVyZQ; theme=dark; _ga=GA1.2.1234567890.1700000000"),
    (b"upgrade-insecure-requests", b"1"),
    (b"sec-fetch-dest", b"document"),
    (b"sec-fetch-mode", b"navigate"),
    (b"x-request-id", b"8f14e45f-ceea-467f-9d3b-6f4f3a2b1c0d"),
]
FORWARDED: list[TextEntry] = [
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"shop.example.com"),
    (b"x-forwarded-port", b"443"),
]


# Three of the browser's headers give way to those that APISIX adds, so there are twelve as well.
AS_APISIX_SENDS: list[TextEntry] = [
    entry for entry in HEADERS if entry[0] not in (b"upgrade-insecure-requests", b"sec-fetch-dest", b"sec-fetch-mode")
] + FORWARDED


def request(headers: list[TextEntry], method: str = "GET") -> HTTPReqCallReq:
    args: list[TextEntry] = [(b"page", b"3"), (b"sort", b"price-asc"), (b"q", b"running shoes")]
    return HTTPReqCallReq(ID, b"\x7f\0\0\1", method, b"/catalog/shoes/items", args, headers, TOKEN)


BODY_BYTES = 10 * 1024
ANSWERS: dict[str, bytes | None] = {
    "#req": b"0123456789abcdef" * (BODY_BYTES // 16),
    "#resp": b"<p>hello</p>" * 100,
    "request_id": b"0" * 32,
    "request": b"GET /catalog/shoes/items?page=3&sort=price-asc&q=running%20shoes HTTP/1.1",
    "request_method": b"GET",
    "real_request_uri": b"/catalog/shoes/items?page=3&sort=price-asc&q=running%20shoes",
    "request_uri": b"/catalog/shoes/items?page=3&sort=price-asc&q=running%20shoes",
    "uri": b"/catalog/shoes/items",
    "args": b"page=3&sort=price-asc&q=running%20shoes",
    "server_protocol": b"HTTP/1.1",
    "scheme": b"https",
    "host": b"shop.example.com",
    "server_addr": b"127.0.0.1",
    "server_port": b"443",
    "remote_addr": b"127.0.0.1",
    "remote_port": b"51234",
    "request_length": b"812",
    **{f"http_{(name or b'').decode().replace('-', '_')}": value for name, value in AS_APISIX_SENDS},
}
"""What the runner may ask the load generator for: the name of a variable, or "#req" and "#resp" for the bodies."""


FRAMES: dict[str, Message] = {
    "prepare_say": prepare(b"say", b'{"body":"hello"}', b"bench-say"),
    "prepare_rewrite": prepare(b"bench-rewrite"),
    "prepare_noop": prepare(b"bench-noop"),
    "prepare_extra": prepare(b"bench-extra"),
    "prepare_sleep": prepare(b"bench-sleep"),
    "prepare_panic": prepare(b"bench-panic"),
    "prepare_panicconf": prepare(b"bench-panicconf"),
    "prepare_unknown": prepare(b"no-such-plugin", key=b"bench-unknown"),
    "prepare_pystop": prepare(b"stop", b'{"body":"hello"}', b"bench-pystop"),
    "prepare_pyrewrite": prepare(b"rewrite", b'{"body":"hello"}', b"bench-pyrewrite"),
    "req": request(HEADERS),
    "req_forwarded": request(AS_APISIX_SENDS),
    "req_cors": request([*AS_APISIX_SENDS, (b"origin", b"https://shop.example.com")]),
    "req_body": request([*AS_APISIX_SENDS, (b"content-length", b"%d" % BODY_BYTES)], "POST"),
    "resp": HTTPRespCallReq(
        ID,
        200,
        [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"server", b"nginx"),
            (b"date", b"Mon, 01 Jan 2024 00:00:00 GMT"),
            (b"x-cache", b"MISS"),
        ],
        TOKEN,
    ),
    "extra": ExtraInfoResp(b"127.0.0.1"),
    # the answers of the floor
    "pc_resp": PrepareConfResp(1),
    "stop_resp": HTTPReqCallResp(1, Stop(200, [(b"X-Resp-A6-Runner", b"Go")], b"hello")),
}


def answers() -> bytes:
    """Return the file of answers: for each the length of its name, the name, and the frame."""
    parts = []
    for name, value in ANSWERS.items():
        parts += [bytes([len(name)]), name.encode(), encode(ExtraInfoResp(value))]
    return b"".join(parts)


def main() -> None:
    offsets: dict[str, dict[str, int]] = {}
    for name, message in FRAMES.items():
        path = FOLDER / f"{name}.bin"
        if not path.exists() and "--write" in sys.argv:
            path.write_bytes(encode(message))
        data = path.read_bytes()
        role = Role.GATEWAY if name in ("pc_resp", "stop_resp") else Role.RUNNER
        found = decode(data[0], data[4:], role)
        if found != message:
            raise SystemExit(f"{path} holds {found}, not {message}")
        if isinstance(message, HTTPReqCallReq | HTTPRespCallReq):
            offsets[name] = {
                "token": data.index(TOKEN.to_bytes(4, "little")),
                "id": data.index(ID.to_bytes(4, "little")),
            }
    for path, content in (
        (FOLDER / "answers.bin", answers()),
        (FOLDER / "both.bin", (FOLDER / "req_forwarded.bin").read_bytes() + (FOLDER / "resp.bin").read_bytes()),
    ):
        if not path.exists() and "--write" in sys.argv:
            path.write_bytes(content)
        if path.read_bytes() != content:
            raise SystemExit(f"{path} is out of date: remove it, and make it anew with --write")
    path = FOLDER / "offsets.json"
    if "--write" in sys.argv:
        path.write_text(json.dumps(offsets, indent=2) + "\n")
    if json.loads(path.read_text()) != offsets:
        raise SystemExit(f"{path} should be {offsets}")


if __name__ == "__main__":
    main()
