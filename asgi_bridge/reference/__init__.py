"""What people look up about plugins: fields, an example to paste, and a JSON Schema of routes for editors."""

from .example import Example, example_of
from .fields import Field, fields_of, summary_of
from .route_schema import route_schema

__all__ = ["Example", "Field", "example_of", "fields_of", "route_schema", "summary_of"]
