"""What an object is: an ASGI application, a middleware, a factory, their like in WSGI, or something else.

Python has no type for any of these, so the way in which an object can be called decides. Called with three positional
arguments it is an ASGI 3 application, with one an ASGI 2 application, with two a WSGI application. A class is judged by
its instances: if they are applications and its constructor takes one, it is a middleware. Where the number of
parameters leaves more than one answer, the names and annotations of the parameters decide.

Some callables have no signature to read: a class compiled by mypyc or Cython, a built-in, a ``(*args, **kwargs)``.
Those are what their owner says they are.
"""

import collections.abc
import dataclasses
import dis
import functools
import inspect
import math
import sys
import types
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

import pydantic
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import PluginError

__all__ = [
    "Kind",
    "Shape",
    "Verdict",
    "WrongApplication",
    "asgi3",
    "hints_of",
    "is_routine",
    "judge",
    "names_of",
    "signature_of",
    "spelled",
]


class Kind(Enum):
    """What an object is; the value is how a message calls it."""

    APPLICATION = "an ASGI application"
    DOUBLE = "an ASGI 2 application"
    UNAWAITABLE = "a function without async"
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


@dataclass(frozen=True)
class Shape:
    """How something can be called.

    Attributes:
        names: of its positional parameters, without ``*args``.
        required: how many of them have to be given.
        most: how many positional arguments it takes.
        keywords: names of the keyword-only parameters that have to be given.
        further: how many parameters it has after the first, keyword-only ones included.
        first, second: what the annotations of the first two say they are.
        wraps: the first one is an application, by its annotation or else by its name.
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
        named = self.names[:1]
        return self.first in ("asgi", "wsgi") or (self.first is None and named != () and named[0] in _INNER)

    @property
    def configured(self) -> bool:
        """The first one is a configuration, likewise."""
        named = self.names[:1]
        return self.first in ("configuration", "scalar") or (
            self.first is None and named != () and named[0] in _CONFIGURATIONS
        )

    @property
    def is_factory_of_middleware(self) -> bool:
        """It takes an application and a configuration, and nothing else."""
        if not self.wraps or self.further != 1 or len(self.names) != 2:
            return False
        return self.second == "configuration" or (self.second is None and self.names[1] in _CONFIGURATIONS)

    @property
    def vague(self) -> bool:
        """It takes whatever it is given."""
        return not self.names and self.most == math.inf

    def takes(self, count: int) -> bool:
        """Whether a call with `count` positional arguments is possible."""
        return self.required <= count <= self.most and not self.keywords


@dataclass(frozen=True)
class Verdict:
    """What an object is.

    Attributes:
        kind: the most likely kind.
        sure: it can be nothing else. Otherwise whoever mounts it knows better.
        shape: how it can be called; of a class, how its instances are made.
        is_class: it is a class, or a partial of one.
    """

    kind: Kind
    sure: bool
    shape: Shape
    is_class: bool = False

    @property
    def may_be_application(self) -> bool:
        """Whether :func:`asgi3` can make an ASGI 3 application of it."""
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
        if self.kind is Kind.MIDDLEWARE and self.is_class:  # otherwise it takes keywords
            return self.shape.wraps and (self.shape.further == 0 or self.shape.is_factory_of_middleware)
        return not self.sure or self.kind in (Kind.FACTORY, Kind.BARE_FACTORY, Kind.MIDDLEWARE)

    @property
    def may_be_wsgi(self) -> bool:
        """Whether it can be called as a WSGI application."""
        return self.kind is Kind.WSGI or (not (self.sure or self.is_class) and self.shape.takes(2))

    @property
    def may_be_wsgi_middleware(self) -> bool:
        """Whether it can be called with a WSGI application, and does not give an ASGI application for sure."""
        if self.sure:
            return self.kind is Kind.WSGI_MIDDLEWARE or (not self.is_class and self.shape.wraps)
        return self.shape.most >= 1


_APPLICATIONS = ("app", "application", "asgi", "asgi_app", "wrapped", "wrapped_app", "inner", "inner_app", "next_app")
_WSGI_APPLICATIONS = ("wsgi", "wsgi_app", "wsgi_application")
_INNER = _APPLICATIONS + _WSGI_APPLICATIONS
_CONFIGURATIONS = ("conf", "config", "configuration", "settings")
_REQUESTS = ("request", "req")


def judge(found: Any) -> Verdict:
    """What `found` is."""
    if not callable(found):
        return Verdict(_kind_of_data(found), True, Shape(most=0))
    made = _without_partials(found)
    if inspect.isclass(made):
        return _judge_class(found, made)
    if _is_wsgify(made):
        return Verdict(Kind.WSGI, True, Shape(("environ", "start_response"), 2, 2))
    function = made if is_routine(made) else _attribute(type(made), "__call__")
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
    """Something that is called itself, no class.

    Args:
        function: what runs, for what its code says.
        is_function: it is a function, which may be a factory; an instance of a class seldom is.
    """
    kind, sure = _kind_of_call(shape, inspect.iscoroutinefunction(function), is_function)
    if kind is Kind.APPLICATION and _never_returns(function):
        return Verdict(Kind.UNAWAITABLE, True, shape)
    return Verdict(kind, sure, shape)


def _kind_of_call(shape: Shape, is_async: bool, is_function: bool) -> tuple[Kind, bool]:
    if shape.vague:
        return (Kind.APPLICATION, False) if is_async else (Kind.UNCLEAR, False)
    first, second = (*shape.names, "", "")[:2]
    # what names and annotations say
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
    # what their number says
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
    """A class, or a partial of one: by what its instances are, and what makes them."""
    shape = _shape(found)
    kind, sure = _kind_of_class(shape, made)
    return Verdict(kind, sure, shape, is_class=True)


def _kind_of_class(shape: Shape, made: type) -> tuple[Kind, bool]:
    if hasattr(made, "__await__") and shape.takes(3):  # Starlette's endpoints
        return Kind.APPLICATION, True
    call = _attribute(made, "__call__")
    if call is None:
        if isinstance(made.__new__, types.FunctionType):  # it may make anything
            return Kind.MIDDLEWARE, False
        if shape.wraps:  # told when it is built: until then something may give it one
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
    # nothing says that it is given an application
    plain = not (shape.vague or shape.wraps) and (shape.required == 0 or shape.first == "scalar")
    if instance.kind in (Kind.APPLICATION, Kind.UNCLEAR, Kind.UNAWAITABLE) or (
        instance.kind is Kind.DOUBLE and instance.sure  # a middleware of ASGI 2
    ):
        if plain:
            return Kind.APPLICATION_CLASS, shape.most == 0 or shape.first == "scalar"
        if instance.kind is Kind.UNAWAITABLE:
            return Kind.UNAWAITABLE, True
        return (Kind.FACTORY, True) if shape.configured else (Kind.MIDDLEWARE, instance.kind is not Kind.UNCLEAR)
    if instance.kind is Kind.WSGI:
        return (Kind.WSGI_CLASS, True) if plain or shape.configured else (Kind.WSGI_MIDDLEWARE, True)
    return Kind.OTHER, instance.sure


def _is_async_pair(instance: Verdict, call: Any) -> bool:
    """Instances are coroutine functions of two: what an ASGI 2 application returns."""
    return instance.kind is Kind.OTHER and instance.shape.takes(2) and inspect.iscoroutinefunction(call)


def _without_partials(found: Any) -> Any:
    while isinstance(found, functools.partial):
        found = found.func
    return found


def _attribute(owner: type, name: str) -> Any:
    """What `name` is for instances of `owner`; not what the metaclass has under it."""
    found = next((vars(base)[name] for base in owner.__mro__ if name in vars(base)), None)
    return found.__func__ if isinstance(found, staticmethod | classmethod) else found


def is_routine(found: Any) -> bool:
    """Whether it is a function or method, compiled or not; no object with a ``__call__`` written in Python."""
    return inspect.isroutine(found) and not inspect.isfunction(_attribute(type(found), "__call__"))


def _is_bound_to_instances(call: Any) -> bool:
    """Whether its first parameter is the instance; Cython's functions have code too."""
    return hasattr(call, "__code__") or isinstance(call, types.WrapperDescriptorType | types.MethodDescriptorType)


def _is_wsgify(found: Any) -> bool:
    """WebOb's decorator of WSGI applications, which can be called with a request too: ``(req, *args, **kw)``."""
    return any((base.__module__, base.__name__) == ("webob.dec", "wsgify") for base in type(found).__mro__)


def _never_returns(function: Any) -> bool:
    """Whether a function written in Python always returns None: an ASGI application without its ``async``."""
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
    return returns  # otherwise it always raises


_SUSPENDS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


# signatures


def signature_of(found: Any) -> inspect.Signature | None:
    """The signature that a call of `found` has to fit; None: it has none to read.

    A decorated function is called as its wrapper says; one that passes everything on is called as what it wraps.
    """
    call = inspect.getattr_static(type(found), "__call__", None)
    if isinstance(call, staticmethod):  # inspect takes its first parameter for the object itself
        found = call.__func__
    for follow in (False, True):
        try:
            signature = inspect.signature(found, follow_wrapped=follow)
        except (TypeError, ValueError):
            continue
        # mypyc's coroutine functions seem to have no parameters
        hidden = not signature.parameters and inspect.iscoroutinefunction(found) and not inspect.isfunction(found)
        if not (hidden or _passes_on(signature)):
            return signature
    return None


def _passes_on(signature: inspect.Signature) -> bool:
    return [each.kind for each in signature.parameters.values()] == [
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ]


def names_of(found: Any) -> list[str]:
    """The names of all its parameters; none where it has no signature to read."""
    signature = signature_of(found)
    return [] if signature is None else list(signature.parameters)


def _shape(found: Any, is_method: bool = False) -> Shape:
    """How `found` is called; a method as its instance calls it."""
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


def hints_of(found: Callable[..., Any]) -> dict[str, Any]:
    """The parameters' annotations; those that do not resolve (imports for type checkers only) are left out."""
    function: Any = _without_partials(found)
    if inspect.isclass(function):
        function = function.__new__ if function.__init__ is object.__init__ else function.__init__
    elif not isinstance(function, types.FunctionType | types.MethodType):
        function = function if is_routine(function) else type(function).__call__
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # any expression may stand in an annotation, so anything may come out
        hints = {}
        module = sys.modules.get(getattr(function, "__module__", None) or "")
        scope = {} if module is None else vars(module)
        for name, annotation in getattr(function, "__annotations__", {}).items():
            try:
                # the plugin's own code, evaluated as get_type_hints does
                hints[name] = eval(annotation, scope) if isinstance(annotation, str) else annotation  # noqa: S307
            except Exception:  # noqa: S112  # as above: this one stays unchecked
                continue
        return hints


def _meaning(annotation: Any) -> Meaning | None:
    """What the annotation of a first parameter says: it is an application, or what a route configures."""
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
    if _attribute(kind, "__call__") is not None or kind is collections.abc.MutableMapping:  # an ASGI scope
        return None
    is_configuration = issubclass(kind, pydantic.BaseModel | collections.abc.Mapping | list | tuple | set)
    if is_configuration or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return "configuration"
    return None


def spelled(found: Any) -> str:
    """How `found` may be called in a line of code."""
    if isinstance(found, functools.partial):
        return f"partial({spelled(found.func)}, ...)"
    name = getattr(found, "__name__", None)
    return name if isinstance(name, str) and name.isidentifier() else "app"


# applications


class WrongApplication(PluginError):
    """What was taken for an ASGI application is none, which only a call of it could show."""


class _Called:
    """An ASGI 3 application whose call gives something to await, but is no coroutine function; or an ASGI 2 one."""

    __slots__ = ("__weakref__", "_app")

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        running = self._app(scope, receive, send)
        if not inspect.isawaitable(running):
            if scope["type"] == "lifespan" and running is None:  # as uvicorn has it: it knows nothing of lifespan
                raise NotImplementedError("no lifespan")
            raise WrongApplication(
                f"{spelled(self._app)} returned {type(running).__name__}, which cannot be awaited: write async def for "
                "the function of (scope, receive, send), and await in it what it calls"
            )
        await running


class _Double(_Called):
    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        instance = self._app(scope)
        if inspect.iscoroutine(instance):
            instance.close()
        if not callable(instance) or not judge(instance).shape.takes(2):
            raise WrongApplication(
                f"{spelled(self._app)} has one parameter, so it was called as an ASGI 2 application, and returned "
                f"{type(instance).__name__}, not a function of (receive, send): write (scope, receive, send) if it is "
                'an application, bridge.add_middleware("name", ...) if it takes one, '
                'bridge.plugin("name") if it takes a configuration'
            )
        await instance(receive, send)


_called: weakref.WeakValueDictionary[int, _Called] = weakref.WeakValueDictionary()


def asgi3(found: Any) -> ASGIApp:
    """`found`, for which ``judge(found).may_be_application`` holds, as an ASGI 3 application.

    The same object gives the same application, so that its lifespan runs once however often it is mounted.
    """
    verdict = judge(found)
    if verdict.is_class and verdict.kind is Kind.APPLICATION:
        return found  # type: ignore[no-any-return]
    three = verdict.shape.takes(3) or verdict.kind is Kind.UNCLEAR
    if verdict.is_class and verdict.kind is Kind.DOUBLE:
        three = False
    function = found if is_routine(found) else _attribute(type(found), "__call__")
    if three and inspect.iscoroutinefunction(function):
        return found  # type: ignore[no-any-return]
    called = _called.get(id(found))  # it keeps what it calls alive, so the id is no other object's
    if called is None or called._app is not found:
        called = _called[id(found)] = _Called(found) if three else _Double(found)
    return called
