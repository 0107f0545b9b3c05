"""What a route may configure."""

from pydantic import BaseModel


class Conf(BaseModel):
    """The JSON in a route's `value`. A field that is not here refuses the route, so a typing error is found."""

    greeting: str = "hello"
