"""The way over the network, where heads are written byte for byte."""

import asyncio
import datetime
import ipaddress
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from asgi_bridge.gateway import GatewayApp, Node, Upstream, read_routes
from asgi_bridge.gateway.pool import Pool
from asgi_bridge.gateway.upstream import BrokenAnswer, CannotConnect, Request, UpstreamTimeout
from asgi_bridge.gateway.upstream.network import NetworkUpstream
from asgi_bridge.wire.messages import HTTPRespCallResp
from tests.doubles.runner_double import RunnerDouble
from tests.gateway.test_app import RESP, called

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request with the next of some texts, and keeps what it got."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.accepted = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                writer.write(answer)
                await writer.drain()
                if not answer or b"close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


def run(server: Server, work: Callable[[NetworkUpstream, int], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        pool = Pool()
        pool.start()
        try:
            async with asyncio.timeout(60):
                return await work(NetworkUpstream(pool), listening.sockets[0].getsockname()[1])
        finally:
            await pool.stop()
            listening.close()

    return asyncio.run(main())


def request(
    port: int,
    method: str = "GET",
    headers: Any = (),
    body: bytes = b"",
    target: bytes = b"/x",
    fetch: bool = False,
    **upstream: Any,
) -> Request:
    return Request(method, target, list(headers), body, Upstream(**upstream), Node("127.0.0.1", port), fetch)


async def get(sender: NetworkUpstream, port: int, *args: Any, **fields: Any) -> tuple[int, bytes]:
    async with sender.send(request(port, *args, **fields)) as response:
        return response.status, b"".join([chunk async for chunk in response.chunks])


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_head_is_written_as_given() -> None:
    server = Server(OK)
    headers = [(b"X-mIx", b"\xe9"), (b"X-mIx", b""), (b"a", b"1")]
    assert run(server, lambda sender, port: get(sender, port, headers=headers, target=b"/\xe9 ")) == (200, b"ok")
    assert server.heads == [b"GET /\xe9  HTTP/1.1\r\nX-mIx: \xe9\r\nX-mIx: \r\na: 1\r\n\r\n"]


def test_connections_are_kept_where_that_is_wanted() -> None:
    server = Server(OK, OK, OK, OK)

    async def work(sender: NetworkUpstream, port: int) -> None:
        await get(sender, port)
        await get(sender, port)
        assert server.accepted == 1
        await get(sender, port, fetch=True)
        assert server.accepted == 2
        await sender._pool.stop()
        await get(sender, port)
        assert server.accepted == 3

    run(server, work)


def test_kept_connection_that_broke_is_made_up_for() -> None:
    server = Server(OK, b"", OK, OK, b"", OK)

    async def work(sender: NetworkUpstream, port: int) -> None:
        await get(sender, port)
        assert await get(sender, port) == (200, b"ok")
        assert server.accepted == 2
        # not for these: they may have been done
        with pytest.raises(BrokenAnswer) as caught:
            await get(sender, port)
            await get(sender, port, "POST")
        assert caught.value.tries == 1

    run(server, work)


def test_kept_connection_that_was_closed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(OK, OK, OK)

    async def work(sender: NetworkUpstream, port: int) -> None:
        await get(sender, port)
        monkeypatch.setattr("asgi_bridge.gateway.pool.time", SimpleNamespace(monotonic=lambda: 1e12))
        await get(sender, port)
        assert server.accepted == 2

    run(server, work)


def test_answers_in_pieces_and_with_interim_ones() -> None:
    chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    until_close = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"
    server = Server(chunked, until_close)

    async def work(sender: NetworkUpstream, port: int) -> None:
        assert await get(sender, port, "POST", body=b"12") == (200, b"ab")
        server.heads.clear()

    run(server, work)
    server = Server(until_close)
    assert run(server, lambda sender, port: get(sender, port)) == (200, b"abc")


def test_head_has_no_body() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert run(server, lambda sender, port: get(sender, port, "HEAD")) == (200, b"")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", BrokenAnswer),
        (b"nonsense close\r\n\r\n", BrokenAnswer),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", BrokenAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: close\r\n\r\nabc", BrokenAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", UpstreamTimeout),
    ],
)
def test_bad_answers(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(Server(answer), lambda sender, port: get(sender, port, read=0.1))


def test_nobody_listens() -> None:
    async def main(**seconds: float) -> None:
        await get(NetworkUpstream(Pool()), 1, **seconds)

    with pytest.raises(CannotConnect):
        asyncio.run(main())
    with pytest.raises(UpstreamTimeout):
        asyncio.run(main(connect=-1.0))


def test_response_that_is_not_read_closes_its_connection() -> None:
    server = Server(OK, OK)

    async def work(sender: NetworkUpstream, port: int) -> None:
        async with sender.send(request(port)):
            pass
        await get(sender, port)
        assert server.accepted == 2

    run(server, work)


def test_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[Any] = []

    async def refuse(host: str, port: int, ssl: Any) -> Any:
        contexts.append(ssl)
        raise OSError("no")

    monkeypatch.setattr("asyncio.open_connection", refuse)
    for fetch in (False, True):
        with pytest.raises(CannotConnect):
            asyncio.run(get(NetworkUpstream(Pool()), 443, fetch=fetch, scheme="https"))
    assert [context.verify_mode for context in contexts] == [ssl.CERT_NONE, ssl.CERT_REQUIRED]


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate of nobody's authority for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.mark.parametrize("trusted", [False, True])
def test_only_the_fetch_of_post_resp_checks_a_certificate(
    runner: RunnerDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trusted: bool,
) -> None:
    cert, key = certificate(tmp_path)
    # where OpenSSL looks for the authorities of the system
    monkeypatch.setenv("SSL_CERT_FILE", cert if trusted else os.devnull)
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def status(server: asyncio.Server, plugins: Any) -> int:
        port = server.sockets[0].getsockname()[1]
        upstream = {"scheme": "https", "nodes": {f"127.0.0.1:{port}": 1}}
        config = {"routes": [{"id": "r", "uri": "/*", "plugins": plugins, "upstream": upstream}]}
        sent = await called(GatewayApp(read_routes(config), runner.path))
        answered: int = sent[0]["status"]
        return answered

    async def main() -> list[int]:
        server = await asyncio.start_server(Server(OK, OK), "127.0.0.1", 0, ssl=context)
        try:
            async with asyncio.timeout(10):
                return [await status(server, plugins) for plugins in ({}, RESP)]
        finally:
            server.close()

    assert asyncio.run(main()) == [200, 200 if trusted else 502]
    why = "the fetch of ext-plugin-post-resp checks the upstream's certificate, plain proxying does not"
    assert [why in message for message in caplog.messages if "failed to request" in message] == [True] * (not trusted)
