"""The gateway does what a real APISIX 3.18.0 did in the recorded cases: frames, upstream requests, responses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import read_routes

from .cases import load_cases
from .compare import Compare
from .stage import PARSERS, Stage, stage

PARSING = "nginx's own HTTP parsing"
BREAKS = "APISIX's answer hangs or breaks the client's connection"
REFUSED = "APISIX drops the route, for it fails the schema; the stand-in refuses the file"

# Cases that are left out, and why. PARSING: uvicorn's parser answers before the gateway sees the request. BREAKS: a
# test below checks that the gateway answers 502, and logs what APISIX would have done. REFUSED: the gateway does not
# load the route file.
LEFT_OUT = {
    "req-path-latin1-raw": (PARSING, "a byte over 127 in the target"),
    "req-query-unicode": (PARSING, "a byte over 127 in the target"),
    "resp-path-utf8-raw": (PARSING, "a byte over 127 in the target"),
    "req-header-invalid-names": (PARSING, "a byte over 127 in a header's name; nginx passes over the header"),
    "req-header-space-in-name": (PARSING, "both answer 400, each with its own page"),
    "req-header-no-colon": (PARSING, "a header line without a colon; nginx takes it for an empty header"),
    "stop-odd-1": (BREAKS, "status 1: nothing ever comes"),
    "stop-odd-1-body": (BREAKS, "status 1: nothing ever comes"),
    "stop-odd-99": (BREAKS, "status 99: nothing ever comes"),
    "stop-odd-99-body": (BREAKS, "status 99: nothing ever comes"),
    "stop-odd-100": (BREAKS, "status 100: nothing ever comes"),
    "stop-odd-100-body": (BREAKS, "status 100: nothing ever comes"),
    "stop-odd-101": (BREAKS, "status 101: nothing ever comes"),
    "stop-odd-199": (BREAKS, "status 199: nothing ever comes"),
    "stop-odd-199-body": (BREAKS, "status 199: nothing ever comes"),
    "stop-odd-408": (BREAKS, "status 408: closed without a byte"),
    "stop-odd-408-body": (BREAKS, "status 408: closed without a byte"),
    "stop-odd-444": (BREAKS, "status 444: closed without a byte"),
    "stop-odd-499-body": (BREAKS, "status 499: closed without a byte"),
    "stop-header-content-length-less": (BREAKS, "the rest of the body is sent behind the response"),
    "stop-header-content-length-more": (BREAKS, "the client waits for the rest"),
    "stop-header-content-length-no-body": (BREAKS, "the client waits for a body"),
    "stop-header-transfer-encoding-and-length": (BREAKS, "not chunked under Transfer-Encoding: chunked"),
    "stop-header-transfer-encoding-identity": (BREAKS, "two Transfer-Encodings; the client waits for the end"),
    "rewrite-headers-content-length-less": (BREAKS, "the rest of the request's body is taken for the next request"),
    "rewrite-headers-content-length-on-get": (BREAKS, "nginx waits for a body that nobody sends"),
    "rewrite-body-smaller-with-post-resp": (BREAKS, "the upstream waits for the rest of the old length"),
    "resp-post-body-chunked": (BREAKS, "the upstream waits for chunks"),
    "resp-all-headers-returned-new-shorter-body": (BREAKS, "the client waits for the rest"),
    "resp-all-headers-returned-new-body-gzip": (BREAKS, "the client waits for the rest"),
    "resp-all-headers-returned-new-longer-body": (BREAKS, "the rest of the body is sent behind the response"),
    "resp-content-length-less": (BREAKS, "the rest of the body is sent behind the response"),
    "utf8-uri-raw-request": (PARSING, "a byte over 127 in the target"),
    "stop-filler-204-then-response-rewrite-205": (BREAKS, "a 204 that becomes another status: nothing ever comes"),
    "stop-filler-204-then-response-rewrite-500": (BREAKS, "a 204 that becomes another status: nothing ever comes"),
    "resp-filler-204-then-response-rewrite-205": (BREAKS, "a 204 that becomes another status: nothing ever comes"),
    "resp-filler-204-then-response-rewrite-500": (BREAKS, "a 204 that becomes another status: nothing ever comes"),
    "nearer-empty-post-req": (REFUSED, "conf is an empty list"),
    "nearer-empty-post-resp": (REFUSED, "conf is an empty list"),
}

# uvicorn has two parsers. httptools lets more headers through. h11 lets HTTP/1.0, other methods and fragments through.
THROUGH_H11 = {
    "req-method-foo",
    "req-path-fragment",
    "req-http10-no-host-post-resp",
    "req-http10-keep-alive",
    "req-http10-post-resp",
    "stop-http10",
    "resp-body-only-http10",
    "keepalive-after-method-500",
}

# the first of the cases that were recorded later
LATER = "again-set-user-agent"

CASES = {case["name"]: case for case in load_cases()}
# A global rule is for all routes of a gateway, so these five cases have a gateway of their own. They follow each other.
GLOBAL = [name for name, case in CASES.items() if case["group"] == "global"]
APART = {*GLOBAL, *(name for name, (why, _) in LEFT_OUT.items() if why == REFUSED)}


def in_response_phase(case: dict[str, Any]) -> bool:
    """Return whether the case's route, or what it inherits from, has ext-plugin-post-resp."""
    return "ext-plugin-post-resp" in json.dumps([case["route"], case.get("routes"), case.get("extra_config")])


# h11 refuses these, or adds a Transfer-Encoding to the answer.
NEEDS_HTTPTOOLS = {
    "req-host-twice",
    "req-host-missing-http11",
    "stop-odd-65535",
    "stop-head-body",
    "stop-header-transfer-encoding-chunked",
    "resp-nothing-head-chunked",
    "resp-all-headers-returned-new-body-chunked",
    "resp-transfer-encoding-chunked",
    "resp-body-only-head",
    "keepalive-head-then-get",
}


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    cases = [case for name, case in CASES.items() if name not in APART]
    with stage(cases, str(tmp_path_factory.mktemp("gateway"))) as ready:
        yield ready


def played(standing: Stage, case: dict[str, Any], *, keep_tokens: bool = False) -> tuple[list[Any], list[Any]]:
    """Play a case. Return the recording and what happened here, in one form. `Stage.play` explains `keep_tokens`."""
    http = "h11" if case["name"] in THROUGH_H11 else PARSERS[-1]
    if http == "h11" and case["name"] in NEEDS_HTTPTOOLS:
        pytest.skip("httptools is not installed, and h11 does not let this case through")
    if case["name"] == "req-upstream-reset":
        standing.warm_up()
    responses, frames, requests = standing.play(case, http, keep_tokens=keep_tokens)
    compare = Compare(standing.ports_here(http), case)
    wanted = [case["client_got"], *(step["client_got"] for step in case.get("next", ()) if "do" not in step)]
    recorded = [
        [compare.rpc_recorded(rpc) for rpc in case["rpcs"]],
        [compare.upstream_recorded(saw) for saw in case["upstream_saw"]],
        [compare.client_recorded(got) for got in wanted],
    ]
    here = [
        [compare.rpc_here(got, rpc) for got, rpc in zip(frames, case["rpcs"], strict=True)],
        [compare.upstream_here(saw, entry) for saw, entry in zip(requests, case["upstream_saw"], strict=False)],
        [compare.client_here(response) for response in responses],
    ]
    if len(requests) != len(case["upstream_saw"]):
        here[1] = requests
    return recorded, here


@pytest.mark.parametrize("name", [name for name in CASES if name not in {*LEFT_OUT, *GLOBAL}])
def test_does_what_apisix_did(standing: Stage, name: str) -> None:
    recorded, here = played(standing, CASES[name])
    assert here == recorded


@pytest.mark.parametrize("name", [name for name, (why, _) in LEFT_OUT.items() if why == BREAKS])
def test_answers_502_and_logs_where_apisix_breaks_the_connection(standing: Stage, name: str) -> None:
    case = CASES[name]
    http = PARSERS[-1]
    responses, frames, _ = standing.play(case, http)
    compare = Compare(standing.ports_here(http), case)
    assert [response.status for response in responses] == [502]
    assert len([line for line in standing.log.lines if "answered 502; APISIX would have" in line]) == 1
    # the calls before are as recorded
    assert [compare.rpc_here(got, rpc) for got, rpc in zip(frames, case["rpcs"], strict=True)] == [
        compare.rpc_recorded(rpc) for rpc in case["rpcs"]
    ]


def test_two_response_phases_are_as_in_apisix(tmp_path: Path) -> None:
    """A global rule and the route have a list each: the client's connection ends after the response."""
    closed = []
    with stage([CASES[name] for name in GLOBAL], str(tmp_path)) as standing:
        for name in GLOBAL:
            recorded, here = played(standing, CASES[name], keep_tokens=True)
            assert here == recorded, name
            if CASES[name]["client_got"]["connection_then"] == "closed":
                assert standing.clients[PARSERS[-1]].at_end(), name
                assert [line for line in standing.log.lines if "headers have already been sent" in line], name
                closed.append(name)
    both = "global-resp-and-route-resp"
    assert closed == [both, f"{both}-post", f"{both}-body"]


@pytest.mark.parametrize("name", [name for name, (why, _) in LEFT_OUT.items() if why == REFUSED])
def test_refuses_a_file_with_a_route_that_apisix_drops(name: str) -> None:
    case = CASES[name]
    assert case["client_got"]["status"] == 404
    with pytest.raises(ConfigurationError, match=f"route '{name}': plugins"):
        read_routes({"routes": [case["route"]], **case["extra_config"]})


def test_left_out_cases_are_few_and_have_a_reason() -> None:
    assert set(LEFT_OUT) <= set(CASES)
    assert set(THROUGH_H11) <= set(CASES)
    names = list(CASES)
    first, later = names[: names.index(LATER)], names[names.index(LATER) :]
    for response_phase, count, allowed in ((False, 326, 45), (True, 131, 13)):
        part = [name for name in first if in_response_phase(CASES[name]) is response_phase]
        assert (len(part), len([name for name in part if name in LEFT_OUT]) <= allowed) == (count, True)
    assert (len(later), len([name for name in later if name in LEFT_OUT]) <= 8) == (135, True)
