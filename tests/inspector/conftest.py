"""One ``asgi-bridge dev`` and one browser for all tests of the page."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ..doubles.browser import browser
from ..doubles.dev_process import SECONDS, Dev, dev
from .page import Page
from .requests import ROUTES, SENT, Sent

HERE = Path(__file__).parent


def send(url: str, sent: Sent) -> None:
    """Send a request byte for byte, and read its answer to the end."""
    address = urlsplit(url)
    lines = [f"{sent.method} {sent.target} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in sent.headers]
    if all(name != "Connection" for name, _ in sent.headers):
        lines.append("Connection: close")
    if sent.body:
        lines.append(f"Content-Length: {len(sent.body)}")
    with socket.create_connection((address.hostname or "", address.port or 0), SECONDS) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + sent.body)
        data = sock.recv(65536)
        while data and b"Upgrade" not in "".join(lines).encode():
            data = sock.recv(65536)


@pytest.fixture(scope="session")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A running ``dev``, to which all the requests were sent, one after the other."""
    folder = tmp_path_factory.mktemp("inspected")
    shutil.copy(HERE / "plugins.py", folder / "gateway_plugins.py")
    (folder / "apisix.yaml").write_text(ROUTES)
    with dev(folder, "gateway_plugins:bridge") as running:
        for each in SENT:
            send(running.url, each)
        yield running


@pytest.fixture(scope="session")
def page(inspected: Dev, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The inspector of it in a browser."""
    with browser(tmp_path_factory.mktemp("browser")) as driver:
        found = Page(driver, inspected.inspector + "/")
        found.open()
        yield found
