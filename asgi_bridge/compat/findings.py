"""What the probes have shown about a plugin, and in which phase to mount it."""

from dataclasses import dataclass, field

from .reading import Reads

__all__ = ["Findings", "ResponseFindings", "advise"]


@dataclass
class ResponseFindings:
    """What a plugin did with the upstream's responses.

    Attributes:
        headers: Names of the response headers that it set, changed or removed.
        lost: Those of `headers` that a plugin can only set in the response phase.
        varying: Those of `headers` whose value differs between responses to the same request.
        status: True: it changed the status.
        body: True: it changed the body.
        recodes: True: it set a content-encoding wherever it changed the body.
        reacts: Names of the responses that it treated otherwise than PAGE.
    """

    headers: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    varying: set[str] = field(default_factory=set)
    status: bool = False
    body: bool = False
    recodes: bool = True
    reacts: set[str] = field(default_factory=set)

    @property
    def changed(self) -> bool:
        """True: the plugin made a change that it can only make to the real response."""
        return self.body or self.status or bool(self.lost)


@dataclass
class Findings:
    """What a plugin did with the probes.

    Attributes:
        answers: Name of each probe that it answered without the upstream → the status.
        limit: Number of the first of many equal requests that it answered without the upstream, and the status.
        replays: True: it answered with a response that the upstream gave to an earlier request.
        request: Parts of the request that it changed: ``method``, ``path``, ``query``, ``body``, ``header NAME``, …
        unmappable: Those parts of `request` that the protocol cannot express.
        response: What it did with the responses of the upstream.
        wraps_send: True: it wraps ``send``, so it may look at the response.
        wraps_receive: True: it wraps ``receive``, so it may look at the request body.
        lifespan: True: it has a lifespan of its own.
        errors: Name of each probe on which it raised → the error.
        passed: True: at least one probe reached the upstream.
        nothing: True: with this configuration it is just the application that it wraps.
        reads: The request headers that it looked for.
        unguarded: What is wrong if its guards do not apply to what it passes on; empty: nothing is.
    """

    answers: dict[str, int] = field(default_factory=dict)
    limit: tuple[int, int] | None = None
    replays: bool = False
    request: set[str] = field(default_factory=set)
    unmappable: set[str] = field(default_factory=set)
    response: ResponseFindings = field(default_factory=ResponseFindings)
    wraps_send: bool = False
    wraps_receive: bool = False
    lifespan: bool = False
    errors: dict[str, str] = field(default_factory=dict)
    passed: bool = field(default=False, compare=False)
    nothing: bool = field(default=False, compare=False)
    unguarded: str = field(default="", compare=False)
    reads: Reads = field(default_factory=Reads, compare=False)


def advise(findings: Findings) -> tuple[str, str]:
    """Say in which phase to mount a plugin.

    Probes show what a plugin does, never what it would do with another request. So one phase alone is advised only
    where the probes show that it is enough: the request phase for a plugin that acts on requests and looks at no
    response, the response phase for one that encodes bodies and lets all requests pass. Every other plugin is advised
    ``both``, where it sees what it sees under a server.

    Args:
        findings: What the plugin did with the probes.

    Returns:
        The phase, and the reason with what the probes cannot tell.
    """
    acts = bool(findings.request or findings.answers or findings.errors or findings.limit)
    response = findings.response
    changes = response.changed
    if findings.nothing:
        return "request", "with this configuration it is nothing but what it wraps"
    if findings.replays:
        return "both", "it keeps responses and answers with them, so it has to see the upstream's"
    if changes and acts:
        return "both", "it acts on the request and changes the real response"
    if response.body and response.recodes and not response.status and response.varying <= response.lost:
        return "response", "it changes the real response"
    if changes:
        return (
            "both",
            "it changes the real response, and the probes cannot tell whether it also refuses or changes some requests "
            "(response will do if it never does)",
        )
    if response.reacts:
        return "both", f"what it does depends on the response: it is different with {listed(response.reacts)}"
    if response.varying:
        return (
            "both",
            f"it sets {listed(response.varying)} to another value each time, and the probes cannot tell whether that "
            "comes from the response (else request will do)",
        )
    if findings.wraps_send and not response.headers:
        return (
            "both",
            "it may watch the response, seen in the both form only, and the probes cannot tell what for (else request "
            "will do)",
        )
    if response.headers:
        return "request", "it adds headers beside the upstream's (both, if their values depend on the response)"
    if acts and not findings.passed:
        return (
            "request",
            "it acts before the upstream; it let no probe pass, so they cannot tell whether it looks at responses "
            "(both, if it does)",
        )
    if acts:
        return "request", "it acts before the upstream, and looked at no response"
    if findings.wraps_receive:
        return "request", "it watches requests, and looked at no response"
    return "both", "it did nothing with any probe, so they cannot tell what it acts on"


def listed(names: set[str]) -> str:
    """Join names for a sentence."""
    return ", ".join(sorted(names))
