"""The certificate that the gateway shows to an upstream, over a real connection."""

import datetime
import functools
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.testclient import TestClient

from asgi_bridge.gateway import GatewayApp, read_routes
from asgi_bridge.gateway.upstream.tls import client_context


@functools.cache
def pair(name: str) -> tuple[str, str]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


class Names(BaseHTTPRequestHandler):
    """Answers with the name in the client's certificate."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        shown: Any = self.connection
        certificate = shown.getpeercert()
        name = dict(entry[0] for entry in certificate["subject"])["commonName"] if certificate else "nobody"
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name.encode())

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    for name, text in zip(("cert", "key"), pair("server"), strict=True):
        (tmp_path / name).write_text(text)
    (tmp_path / "clients").write_text(pair("gateway")[0] + pair("other")[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    context.load_verify_locations(tmp_path / "clients")
    context.verify_mode = ssl.CERT_OPTIONAL
    server = ThreadingHTTPServer(("127.0.0.1", 0), Names)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_upstream_is_shown_its_own_certificate(port: int, tmp_path: Path) -> None:
    nodes = {f"127.0.0.1:{port}": 1}
    shown = {name: dict(zip(("client_cert", "client_key"), pair(name), strict=True)) for name in ("gateway", "other")}
    upstreams: dict[str, dict[str, Any]] = {
        "/own": {"tls": {**shown["gateway"], "verify": False}},
        "/other": {"tls": shown["other"]},
        "/referred": {"tls": {"client_cert_id": 3}},
        "/none": {},
    }
    data = {
        "routes": [
            {"id": uri[1:], "uri": uri, "upstream": {"scheme": "https", "nodes": nodes, **fields}}
            for uri, fields in upstreams.items()
        ],
        "ssls": [{"id": 3, "type": "client", **dict(zip(("cert", "key"), pair("other"), strict=True))}],
    }
    with TestClient(GatewayApp(read_routes(data), str(tmp_path / "no.sock"))) as client:
        # twice: a connection that is kept for one of them is not taken for another
        got = [client.get(uri).text for uri in (*upstreams, *reversed(upstreams))]
    assert got == ["gateway", "other", "other", "nobody", "nobody", "other", "other", "gateway"]


def test_a_certificate_and_somebody_elses_key() -> None:
    with pytest.raises(ssl.SSLError):
        client_context(pair("gateway")[0], pair("other")[1])
