"""TLS to upstreams: the certificate that the gateway shows."""

import functools
import ssl
import tempfile
from pathlib import Path

__all__ = ["client_context"]


@functools.lru_cache(maxsize=64)
def client_context(certificate: str, key: str) -> ssl.SSLContext:
    """Give a context that shows a certificate to the server, and does not verify that of the server, as in nginx.

    Args:
        certificate, key: In PEM; both empty: none is shown.

    Raises:
        OSError: They cannot be read, or do not fit each other (`ssl.SSLError` is one).
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        # the ssl module reads them from files only
        with tempfile.TemporaryDirectory(prefix="asgi-bridge-") as folder:
            paths = Path(folder, "cert.pem"), Path(folder, "key.pem")
            for path, text in zip(paths, (certificate, key), strict=True):
                path.write_text(text)
            context.load_cert_chain(*paths, password="")
    return context
