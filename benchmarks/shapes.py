"""Makes ``frames/shapes.bin.gz``: 1,000 request calls that differ in path, query, headers and lengths.

``python -m benchmarks.shapes`` checks the file; with ``--write`` it makes the file anew.

Nobody's traffic is one request over and over. The calls stem from the recorded cases of the tests: calls that a real
APISIX has sent. These are short, as those of ``curl`` are. Therefore most of the shapes are such a call as a browser,
a telephone or another service would have made it: with some of their headers, with values of other lengths.
"""

import gzip
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from asgi_bridge.wire import HTTPReqCallReq, Role, TextEntry, decode, encode

__all__ = ["FILE", "shapes"]

HERE = Path(__file__).resolve().parent
FILE = HERE / "frames" / "shapes.bin.gz"
CASES = HERE.parent / "tests" / "data"
COUNT = 1000
TOKEN = 0x7A5B3C1D
LONGEST = 4096
"""Bytes of the longest frame. Cases with longer ones are about limits."""
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")

BROWSERS = (
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:127.0) Gecko/20100101 Firefox/127.0",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5",
    b"okhttp/4.12.0",
    b"python-requests/2.32.3",
    b"Go-http-client/1.1",
)
WORDS = "shoes boots red blue winter order basket item user page size price list find year city new best".split()


def recorded() -> Iterator[HTTPReqCallReq]:
    """Yield the request calls of the recorded cases that a plugin lets pass, each once."""
    known = set()
    for name in ("apisix-cases.jsonl.gz", "apisix-cases-2.jsonl.gz"):
        with gzip.open(CASES / name, "rt", encoding="utf-8") as lines:
            for line in lines:
                for rpc in json.loads(line)["rpcs"]:
                    frame = rpc.get("frame_in_hex")
                    if rpc["type"] != 2 or not isinstance(frame, str) or len(frame) > 2 * LONGEST:
                        continue
                    message = decode(2, bytes.fromhex(frame)[4:], Role.RUNNER)
                    assert isinstance(message, HTTPReqCallReq)
                    names = {name for name, _ in message.headers or ()}
                    shape = (message.method, message.path, str(message.args), str(message.headers))
                    whole = {b"host", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"} <= names
                    if message.method in METHODS and whole and shape not in known:
                        known.add(shape)
                        yield message


def _hexadecimal(rng: random.Random, length: int) -> bytes:
    return "".join(rng.choices("0123456789abcdef", k=length)).encode()


def _uuid(rng: random.Random) -> bytes:
    return b"-".join(_hexadecimal(rng, length) for length in (8, 4, 4, 4, 12))


def more_headers(rng: random.Random) -> Iterator[TextEntry]:
    """Yield headers as clients and proxies add them."""

    def word() -> str:
        return rng.choice(WORDS)

    yield b"user-agent", rng.choice(BROWSERS)
    yield b"accept", rng.choice((b"*/*", b"application/json", b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"))
    if rng.random() < 0.7:
        yield b"accept-encoding", b"gzip, deflate, br"
    if rng.random() < 0.6:
        yield b"accept-language", rng.choice((b"en-US,en;q=0.9", b"de-DE,de;q=0.9,en;q=0.7", b"fr"))
    if rng.random() < 0.5:
        pairs = [f"{word()}={word()}{rng.randrange(10**6)}" for _ in range(rng.randint(1, 8))]
        yield b"cookie", "; ".join(pairs).encode()
    if rng.random() < 0.3:
        payload = "".join(f"{word()}.{word()}-" for _ in range(rng.randint(5, 40)))
        yield b"authorization", f"Bearer {payload}".encode()
    if rng.random() < 0.4:
        yield b"referer", f"https://{word()}.example.com/{word()}/{word()}?{word()}={rng.randrange(100)}".encode()
    if rng.random() < 0.3:
        yield b"x-request-id", _uuid(rng)
    if rng.random() < 0.2:
        yield b"traceparent", b"00-" + _hexadecimal(rng, 32) + b"-" + _hexadecimal(rng, 16) + b"-01"
    if rng.random() < 0.2:
        yield b"x-forwarded-for", b", ".join(b"10.%d.%d.1" % (rng.randrange(256), n) for n in range(rng.randint(1, 3)))
    for _ in range(rng.choice((0, 0, 0, 1, 2, 5))):
        yield f"x-{word()}-{word()}".encode(), f"{word()} {rng.randrange(10**9)}".encode()


def varied(message: HTTPReqCallReq, rng: random.Random) -> HTTPReqCallReq:
    """Return a recorded call as another client would have made it."""
    own = {name for name, _ in message.headers or ()}
    headers = list(message.headers or ())
    seen = set(own)
    for name, value in more_headers(rng):
        if name not in seen:
            seen.add(name)
            headers.insert(rng.randint(0, len(headers)), (name, value))
    path = message.path or b"/"
    for _ in range(rng.randint(0, 3)):
        path = path.rstrip(b"/") + f"/{rng.choice(WORDS)}{rng.choice(('', rng.randrange(10**4)))}".encode()
    args = list(message.args or ())
    for _ in range(rng.choice((0, 0, 1, 2, 3, 6))):
        name = rng.choice(WORDS).encode()
        args.append((name, f"{rng.choice(WORDS)} {rng.randrange(1000)}".encode()))
    address = bytes(rng.randrange(1, 255) for _ in range(4 if rng.random() < 0.8 else 16))
    return HTTPReqCallReq(rng.randrange(1, 2**32), address, message.method, path, args, headers, TOKEN)


def shapes() -> bytes:
    """Return the frames, one behind the other."""
    rng = random.Random(20)  # noqa: S311  # the same ones each time
    origins = list(recorded())
    # an id, so that the load generator can write its own there, and a token as well
    plain = [
        HTTPReqCallReq(n, each.src_ip, each.method, each.path, each.args, each.headers, TOKEN)
        for n, each in enumerate(rng.sample(origins, 200), 1)
    ]
    messages = plain + [varied(rng.choice(origins), rng) for _ in range(COUNT - len(plain))]
    rng.shuffle(messages)
    return b"".join(map(encode, messages))


def main() -> None:
    frames = shapes()
    if "--write" in sys.argv:
        FILE.write_bytes(gzip.compress(frames, 9, mtime=0))
    if gzip.decompress(FILE.read_bytes()) != frames:
        raise SystemExit(f"{FILE} is out of date: make it anew with --write")


if __name__ == "__main__":
    main()
