"""A WSGI application, named by ``module:attr``."""

from flask import Flask

__all__ = ["app"]

app = Flask(__name__)
