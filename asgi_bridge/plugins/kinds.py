"""What an object is: an ASGI application, a middleware, a factory, their like in WSGI, or something else.

Python has no type for any of these, so it depends on how an object can be called. With three positional arguments it is
an ASGI 3 application, with one an ASGI 2 application, with two a WSGI application. A class depends on its instances: if
they are applications and its constructor takes one, it is a middleware. If the number of parameters leaves several
answers, the names and annotations of the parameters decide.

Some callables have no signature to read: a class compiled by mypyc or Cython, a built-in, a ``(*args, **kwargs)``. They
are whatever they are mounted as.
"""

import collections.abc
import dataclasses
import dis
import inspect
import math
import types
import typing
from enum import Enum
from typing import Any, Literal, NamedTuple, TypeAlias

import pydantic

from .signatures import attribute_of, hints_of, is_routine, signature_of, without_partials

__all__ = ["Kind", "Shape", "Verdict", "judge"]


class Kind(Enum):
    """What an object is. The value is the words for it in messages."""

    APPLICATION = "an ASGI application"
    DOUBLE = "an ASGI 2 application"
    UNAWAITABLE = "a function without async"
    GENERATOR = "a generator function"
    MIDDLEWARE = "a middleware"
    FACTORY = "a factory"
    BARE_FACTORY = "a factory without a configuration"
    APPLICATION_CLASS = "a class of ASGI applications"
    WSGI = "a WSGI application"
    WSGI_CLASS = "a class of WSGI applications"
    WSGI_MIDDLEWARE = "a WSGI middleware"
    DISPATCH = "a function of (request, call_next)"
    VIEW = "a function of a request"
    DJANGO = "a Django middleware"
    ENTRY = "an entry of Starlette's middleware list"
    COROUTINE = "a coroutine that nobody awaited"
    STRING = "a string"
    MODULE = "a module"
    DATA = "no callable"
    UNCLEAR = "a callable with any arguments"
    OTHER = "neither an application nor a middleware nor a factory"


Meaning: TypeAlias = Literal["asgi", "wsgi", "request", "configuration", "scalar"]
"""What the annotation of a parameter says that it is."""


class Shape(NamedTuple):
    """How something can be called.

    Attributes:
        names: Names of its positional parameters, without ``*args``.
        required: Number of positional parameters without a default.
        most: Maximum number of positional arguments.
        keywords: Names of the keyword-only parameters without a default.
        further: Number of parameters after the first, keyword-only ones included.
        first: What the annotation of the first parameter says that it is.
        second: Likewise for the second parameter.
    """

    names: tuple[str, ...] = ()
    required: int = 0
    most: float = math.inf
    keywords: tuple[str, ...] = ()
    further: int = 0
    first: "Meaning | None" = None
    second: "Meaning | None" = None

    @property
    def wraps(self) -> bool:
        """The first parameter is an application, by its annotation or else by its name."""
        named = self.names[:1]
        return self.first in ("asgi", "wsgi") or (self.first is None and named != () and named[0] in _INNER)

    @property
    def configured(self) -> bool:
        """The first parameter is a configuration, by its annotation or else by its name."""
        named = self.names[:1]
        return self.first in ("configuration", "scalar") or (
            self.first is None and named != () and named[0] in _CONFIGURATIONS
        )

    @property
    def is_factory_of_middleware(self) -> bool:
        """The parameters are an application and a configuration, and nothing else."""
        if not self.wraps or self.further != 1 or len(self.names) != 2:
            return False
        return self.second == "configuration" or (self.second is None and self.names[1] in _CONFIGURATIONS)

    @property
    def vague(self) -> bool:
        """Its signature says nothing: it accepts any arguments."""
        return not self.names and self.most == math.inf

    def takes(self, count: int) -> bool:
        """Return whether a call with `count` positional arguments is possible."""
        return self.required <= count <= self.most and not self.keywords


class Verdict(NamedTuple):
    """What an object is.

    Attributes:
        kind: The most likely kind.
        sure: True: it can be nothing else. False: it may be mounted as something else too.
        shape: How it can be called. For a class: how its instances are made.
        is_class: True: it is a class, or a `functools.partial` of one.
    """

    kind: Kind
    sure: bool
    shape: Shape
    is_class: bool = False

    @property
    def may_be_application(self) -> bool:
        """Whether :func:`asgi_bridge.plugins.applications.asgi3` can make an ASGI 3 application of it."""
        if self.sure or self.is_class or self.kind in (Kind.MIDDLEWARE, Kind.WSGI_MIDDLEWARE):
            return self.kind in (Kind.APPLICATION, Kind.DOUBLE)
        return self.kind is Kind.UNCLEAR or self.shape.takes(3) or self.shape.takes(1)

    @property
    def may_be_middleware(self) -> bool:
        """Whether it can be called with an application."""
        if self.sure:
            return self.kind is Kind.MIDDLEWARE or (self.kind is Kind.FACTORY and self.shape.wraps)
        return self.shape.most >= 1

    @property
    def may_be_factory(self) -> bool:
        """Whether it can be called with a configuration, or with an application and a configuration."""
        if self.kind is Kind.MIDDLEWARE and self.is_class:  # any other middleware class takes keywords
            return self.shape.wraps and (self.shape.further == 0 or self.shape.is_factory_of_middleware)
        return not self.sure or self.kind in (Kind.FACTORY, Kind.BARE_FACTORY, Kind.MIDDLEWARE)

    @property
    def may_be_wsgi(self) -> bool:
        """Whether it can be called as a WSGI application."""
        return self.kind is Kind.WSGI or (not (self.sure or self.is_class) and self.shape.takes(2))

    @property
    def may_be_wsgi_middleware(self) -> bool:
        """Whether it can be called with a WSGI application, and does not certainly return an ASGI application."""
        if self.sure:
            return self.kind is Kind.WSGI_MIDDLEWARE or (not self.is_class and self.shape.wraps)
        return self.shape.most >= 1


_APPLICATIONS = ("app", "application", "asgi", "asgi_app", "wrapped", "wrapped_app", "inner", "inner_app", "next_app")
_WSGI_APPLICATIONS = ("wsgi", "wsgi_app", "wsgi_application")
_INNER = _APPLICATIONS + _WSGI_APPLICATIONS
"""Names of a parameter that is the wrapped application."""
_CONFIGURATIONS = ("conf", "config", "configuration", "settings")
"""Names of a parameter that is a configuration."""
_REQUESTS = ("request", "req")
"""Names of a parameter that is a request object."""


def judge(found: Any) -> Verdict:
    """Return what `found` is."""
    if not callable(found):
        return Verdict(_kind_of_data(found), True, Shape(most=0))
    made = without_partials(found)
    if inspect.isclass(made):
        return _judge_class(found, made)
    if _is_wsgify(made):
        return Verdict(Kind.WSGI, True, Shape(("environ", "start_response"), 2, 2))
    function = made if is_routine(made) else attribute_of(type(made), "__call__")
    return _judge_call(_shape(found), function, isinstance(made, types.FunctionType))


def _kind_of_data(found: Any) -> Kind:
    if inspect.isawaitable(found):
        return Kind.COROUTINE
    if isinstance(found, str):
        return Kind.STRING
    if isinstance(found, types.ModuleType):
        return Kind.MODULE
    if inspect.isclass(getattr(found, "cls", None)) and hasattr(found, "kwargs"):
        return Kind.ENTRY
    return Kind.DATA


def _judge_call(shape: Shape, function: Any, is_function: bool) -> Verdict:
    """Return what a callable that is no class is.

    Args:
        shape: How it can be called.
        function: The function that runs then.
        is_function: True: it is a function itself, which may be a factory. An instance of a class seldom is one.
    """
    kind, sure = _kind_of_call(shape, inspect.iscoroutinefunction(function), is_function)
    if kind is Kind.APPLICATION and _never_returns(function):
        return Verdict(Kind.UNAWAITABLE, True, shape)
    if kind in (Kind.APPLICATION, Kind.DOUBLE) and _is_generator(function):
        return Verdict(Kind.GENERATOR, True, shape)
    return Verdict(kind, sure, shape)


def _kind_of_call(shape: Shape, is_async: bool, is_function: bool) -> tuple[Kind, bool]:
    if shape.vague:
        return (Kind.APPLICATION, False) if is_async else (Kind.UNCLEAR, False)
    first, second = (*shape.names, "", "")[:2]
    # by names and annotations
    if second == "start_response" or (first in ("environ", "env") and shape.takes(2)):
        return Kind.WSGI, not is_async
    if second == "call_next":
        return Kind.DISPATCH, True
    if first == "get_response":
        return Kind.DJANGO, True
    if first == "scope" or shape.names[1:3] == ("receive", "send"):
        return (Kind.APPLICATION if shape.takes(3) else Kind.DOUBLE if shape.takes(1) else Kind.OTHER), True
    if shape.takes(1) and (shape.first == "request" or (first in _REQUESTS and shape.first is None)):
        return Kind.VIEW, True
    if shape.required <= 1 and shape.configured:
        return Kind.FACTORY, True
    if shape.wraps:
        if is_function and shape.is_factory_of_middleware:
            return Kind.FACTORY, True
        return (Kind.WSGI_MIDDLEWARE, False) if _says_wsgi(shape) else (Kind.MIDDLEWARE, True)
    # by the number of parameters
    if shape.takes(3) and shape.required == 3:
        return Kind.APPLICATION, is_async
    if shape.takes(2) and shape.required == 2 and not is_async:
        return Kind.WSGI, False
    if shape.names and shape.required <= 1:
        return (Kind.FACTORY, False) if is_function else (Kind.DOUBLE, False)
    if shape.most == 0 and not shape.keywords:
        return Kind.BARE_FACTORY, True
    return Kind.OTHER, True


def _says_wsgi(shape: Shape) -> bool:
    return shape.first == "wsgi" or (shape.first is None and shape.names[0] in _WSGI_APPLICATIONS)


def _judge_class(found: Any, made: type) -> Verdict:
    """Return what a class is, by what its instances are and how they are made."""
    shape = _shape(found)
    kind, sure = _kind_of_class(shape, made)
    return Verdict(kind, sure, shape, is_class=True)


def _kind_of_class(shape: Shape, made: type) -> tuple[Kind, bool]:
    if hasattr(made, "__await__") and shape.takes(3):  # Starlette's endpoints
        return Kind.APPLICATION, True
    call = attribute_of(made, "__call__")
    if call is None:
        if isinstance(made.__new__, types.FunctionType):  # it may make an instance of anything
            return Kind.MIDDLEWARE, False
        if shape.wraps:  # it may get a `__call__` later; if not, its use says so
            return Kind.MIDDLEWARE, False
        is_response = shape.required == 2 and shape.takes(2) and hasattr(made, "__iter__")  # PEP 3333 allows a class
        return (Kind.WSGI, True) if is_response else (Kind.OTHER, True)
    if _is_wsgify(call):
        instance = Verdict(Kind.WSGI, True, Shape())
    else:
        instance = _judge_call(_shape(call, is_method=_is_bound_to_instances(call)), call, False)
    first = shape.names[0] if shape.names else ""
    if first == "get_response":
        return Kind.DJANGO, True
    names = instance.shape.names
    if shape.takes(1) and (first == "scope" or names == ("receive", "send") or _is_async_pair(instance, call)):
        return Kind.DOUBLE, True
    # nothing says that its constructor takes an application
    plain = not (shape.vague or shape.wraps) and (shape.required == 0 or shape.first == "scalar")
    if instance.kind in (Kind.APPLICATION, Kind.UNCLEAR, Kind.UNAWAITABLE, Kind.GENERATOR) or (
        instance.kind is Kind.DOUBLE and instance.sure  # a middleware for ASGI 2
    ):
        if plain:
            return Kind.APPLICATION_CLASS, shape.most == 0 or shape.first == "scalar"
        if instance.kind in (Kind.UNAWAITABLE, Kind.GENERATOR):
            return instance.kind, True
        return (Kind.FACTORY, True) if shape.configured else (Kind.MIDDLEWARE, instance.kind is not Kind.UNCLEAR)
    if instance.kind is Kind.WSGI:
        return (Kind.WSGI_CLASS, True) if plain or shape.configured else (Kind.WSGI_MIDDLEWARE, True)
    return Kind.OTHER, instance.sure


def _is_async_pair(instance: Verdict, call: Any) -> bool:
    """Return whether instances are coroutine functions of two parameters, as an ASGI 2 application returns them."""
    return instance.kind is Kind.OTHER and instance.shape.takes(2) and inspect.iscoroutinefunction(call)


def _is_bound_to_instances(call: Any) -> bool:
    """Return whether its first parameter is the instance. Functions of Cython have code too."""
    return hasattr(call, "__code__") or isinstance(call, types.WrapperDescriptorType | types.MethodDescriptorType)


def _is_wsgify(found: Any) -> bool:
    """Return whether it is WebOb's decorator for WSGI applications, whose signature is ``(req, *args, **kw)``."""
    return any((base.__module__, base.__name__) == ("webob.dec", "wsgify") for base in type(found).__mro__)


def _is_generator(function: Any) -> bool:
    """Return whether a call returns a generator that cannot be awaited. One of `types.coroutine` can be."""
    function = getattr(function, "__func__", function)
    flags = function.__code__.co_flags if inspect.isfunction(function) else 0
    return bool(flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)) and not flags & _AWAITABLE


def _never_returns(function: Any) -> bool:
    """Return whether a function in Python always returns None: an ASGI application that lacks its ``async``."""
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function) or function.__code__.co_flags & _SUSPENDS:
        return False
    returns = False
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(function):
        if instruction.opname == "RETURN_CONST" and instruction.argval is not None:
            return False
        if instruction.opname == "RETURN_VALUE":
            nothing = before is not None and before.opname == "LOAD_CONST" and before.argval is None
            if not nothing or instruction.is_jump_target:
                return False
        returns = returns or instruction.opname in ("RETURN_CONST", "RETURN_VALUE")
        before = instruction
    return returns  # False: it always raises


_AWAITABLE = inspect.CO_ITERABLE_COROUTINE
_SUSPENDS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


def _shape(found: Any, is_method: bool = False) -> Shape:
    """Return how `found` can be called.

    Args:
        found: A callable.
        is_method: True: its first parameter is the instance, which does not count.
    """
    signature = signature_of(found)
    if signature is None:
        return Shape()
    parameters = list(signature.parameters.values())[is_method:]
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    any_number = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    names = tuple(each.name for each in positional)
    hints = hints_of(found) if names else {}
    return Shape(
        names,
        sum(each.default is each.empty for each in positional),
        math.inf if any_number else len(positional),
        tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty),
        len(parameters) - 1,
        *(_meaning(hints.get(name)) for name in names[:2]),
    )


def _meaning(annotation: Any) -> Meaning | None:
    """Return what an annotation says that a parameter is; None: it says nothing that matters here."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _meaning(arguments[0])
    if origin in (typing.Union, types.UnionType):
        meanings = {_meaning(each) for each in arguments if each is not types.NoneType}
        if len(meanings) == 1:
            return meanings.pop()
        return "asgi" if "asgi" in meanings else None
    if origin is collections.abc.Callable:
        count = len(arguments[0]) if arguments and isinstance(arguments[0], list) else None
        return "wsgi" if count == 2 else "asgi" if count in (1, 3) else None
    kind = origin or annotation
    if not isinstance(kind, type):
        return None
    if issubclass(kind, str | bytes | int | float):
        return "scalar"
    if kind.__name__ in ("Request", "HttpRequest", "HTTPConnection"):
        return "request"
    if attribute_of(kind, "__call__") is not None or kind is collections.abc.MutableMapping:  # an ASGI scope
        return None
    is_configuration = issubclass(kind, pydantic.BaseModel | collections.abc.Mapping | list | tuple | set)
    if is_configuration or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return "configuration"
    return None
