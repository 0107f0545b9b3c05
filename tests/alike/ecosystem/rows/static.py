"""Static files."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from ...compare import Request, get, sent
from ..stage import Row, Volatile

__all__ = ["FOLDER", "ROWS"]

FOLDER = tempfile.mkdtemp(prefix="asgi-bridge-static-")
"""Folder of the files, which all have the same time."""
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
for name, content in {
    "app.css": b"p { color: red }\n" * 40,
    "index.html": b"<h1>index</h1>",
    "sub/data.json": b'{"a": 1}',
    "a b.txt": b"a name with a blank",
    "empty.txt": b"",
}.items():
    file = Path(FOLDER, name)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (1_600_000_000, 1_600_000_000))

REQUESTS: list[Request] = [
    get("/static/app.css"),
    sent("HEAD", "/static/app.css"),
    get("/static/sub/data.json"),
    get("/static/a%20b.txt"),
    get("/static/empty.txt"),
    get("/static/nothing.css"),
    get("/static/app.css", range="bytes=0-9"),
    get("/static/app.css", range="bytes=-5"),
    get("/static/app.css", range="bytes=9000-"),
    get("/static/app.css", if_modified_since="Sun, 13 Sep 2020 12:26:40 GMT"),
    get("/static/app.css", if_modified_since="Sat, 12 Sep 2020 12:26:40 GMT"),
    sent("POST", "/static/app.css", b"x"),
]

ROWS = [
    Row(
        "servestatic",
        "servestatic",
        {
            "servestatic": {
                "middleware": "servestatic:ServeStaticASGI",
                "phase": "request",
                "defaults": {"root": FOLDER, "prefix": "/static"},
            }
        },
        "request",
        REQUESTS,
        limits=["blank"],
    ),
    Row(
        "servestatic-wsgi",
        "servestatic",
        {
            "servestatic-wsgi": {
                "wsgi_middleware": "servestatic:ServeStatic",
                "phase": "request",
                "defaults": {"root": FOLDER, "prefix": "/static"},
            }
        },
        "request",
        REQUESTS,
        wsgi=True,
        limits=["blank"],
    ),
    Row(
        "whitenoise",
        "whitenoise",
        {
            "whitenoise": {
                "wsgi_middleware": "whitenoise:WhiteNoise",
                "phase": "request",
                "defaults": {"root": FOLDER, "prefix": "/static"},
            }
        },
        "request",
        REQUESTS,
        wsgi=True,
        limits=["blank"],
    ),
    Row(
        "shared-data",
        "Werkzeug",
        {
            "shared-data": {
                "wsgi_middleware": "werkzeug.middleware.shared_data:SharedDataMiddleware",
                "phase": "request",
                "defaults": {"exports": {"/static": FOLDER}},
            }
        },
        "request",
        REQUESTS,
        wsgi=True,
        volatile=[Volatile("expires", ".+")],
    ),
]
