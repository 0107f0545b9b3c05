"""A client gets the same response from uvicorn with a middleware, and from the gateway with it as a plugin.

Real servers on both sides, the same upstream behind them. Where a response differs, a limit of the protocol says how.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import itsdangerous
import pytest

from ..compare import Answer, Request, Result
from ..limits import LIMITS, comparable, undocumented
from .cases import CASES, EXCEPTIONS, OWN
from .stage import Side, standing
from .subjects import SECRET, SUBJECTS, make_bridge
from .upstream import make_upstream

Sides = dict[str, tuple[Side, Side]]


def without_time(answer: Answer) -> Answer:
    """Take from session cookies the second in which they were signed."""
    if "set-cookie" not in answer.headers:
        return answer
    cookies = [_without_time(cookie) for cookie in answer.headers["set-cookie"]]
    return dataclasses.replace(answer, headers={**answer.headers, "set-cookie": cookies})


def _without_time(cookie: str) -> str:
    value, _, rest = cookie.removeprefix("session=").partition(";")
    if value == "null" or not cookie.startswith("session="):
        return cookie
    return f"session={itsdangerous.TimestampSigner(SECRET).unsign(value).decode()}; signed;{rest}"


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = Path(tempfile.mkdtemp(prefix="ab-", dir="/tmp"))  # a short path, for the socket
    upstream = make_upstream(tmp_path_factory.mktemp("files"))
    with standing(upstream, make_bridge(), SUBJECTS, folder) as found:
        yield found
    shutil.rmtree(folder)


def test_every_middleware_has_its_requests() -> None:
    assert len(set(CASES)) == len(CASES)
    assert {name: len([one for one, _ in CASES if one == name]) >= 20 for name in OWN} == dict.fromkeys(OWN, True)
    assert set(EXCEPTIONS) <= set(CASES)


@pytest.mark.parametrize("name", dict.fromkeys(EXCEPTIONS.values()))
def test_every_limit_has_its_line_in_the_documentation(name: str) -> None:
    assert undocumented(LIMITS[name]) == []


@pytest.mark.parametrize(("subject", "request_"), CASES, ids=lambda value: str(value))
def test_the_client_gets_what_uvicorn_sends(
    sides: Sides, record_property: Callable[[str, object], None], subject: str, request_: Request
) -> None:
    record_property("fidelity", compare(sides, subject, request_))


def compare(sides: Sides, subject: str, request_: Request) -> str:
    """Compare both sides. Returns "equal", or "limited" where a limit says how the answers differ."""
    uvicorn, gateway = sides[subject]
    expected, found = without_time(uvicorn.ask(request_)), without_time(gateway.ask(request_))
    limit = EXCEPTIONS.get((subject, request_))
    if limit is None:
        assert found == expected
        return "equal"
    assert found != expected, "there is no limit any more"
    plain, through = comparable(request_, Result(expected), Result(found), [LIMITS[limit]])
    assert through == plain
    return "limited"
