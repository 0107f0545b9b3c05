"""``asgi-bridge generate``: prints routes with the plugins of a TARGET, and the files that deploy it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import ConfigurationError
from .options import Workers, env_file_option, find_source, is_given, read_environment, source_options

if TYPE_CHECKING:
    from ..generate.routes import Route
    from ..generate.runner import Deployed
    from ..loading import Source

__all__ = ["generate"]

Command = TypeVar("Command", bound=Callable[..., Any])


class Chosen(click.ParamType[tuple[str, str]]):
    """An option's value ``NAME``, ``NAME=JSON`` or ``NAME=@FILE``, as the tuple (name, JSON)."""

    name = "NAME[=JSON|=@FILE]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Convert the value, as click wants it. Fails with click's usage error."""
        if isinstance(value, tuple):
            return value
        name, equals, conf = value.partition("=")
        if not name or (equals and not conf):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        if conf.startswith("@"):
            try:
                conf = Path(conf[1:]).read_text("utf-8")
            except (OSError, ValueError) as exc:
                self.fail(f"{conf[1:]} cannot be read: {exc}", param, ctx)
        return name, conf or "{}"


class DeployedWorkers(click.ParamType[str]):
    """A value of ``asgi-bridge run --workers``, as a text: ``auto`` is counted where the runner runs."""

    name = Workers.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Convert the value, as click wants it. Fails with click's usage error."""
        return "auto" if value == "auto" else str(Workers().convert(value, param, ctx))


def _options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Make one decorator of several. The help lists their options in this order."""

    def decorate(command: Command) -> Command:
        for each in reversed(decorators):
            command = each(command)
        return command

    return decorate


_name = click.option("--name", default="gate", show_default=True, help="Name of what is made.")
_plugins = _options(
    source_options,
    env_file_option,
    click.option(
        "--plugin", "chosen", type=Chosen(), multiple=True,
        help="A plugin of the route, and its configuration. May be given several times, in the order in which they "
        "run.  [default: all mounted plugins, with {}]",
    ),
    click.option(
        "--post-req", multiple=True, metavar="NAME",
        help="This plugin runs after APISIX's own, in ext-plugin-post-req. May be given several times.",
    ),
    click.option(
        "--post-resp", multiple=True, metavar="NAME",
        help="This plugin runs in the response phase alone. May be given several times.",
    ),
)  # fmt: skip
_route = _options(
    _plugins,
    _name,
    click.option("--uri", "uris", multiple=True, default=["/*"], show_default=True, help="Path of the route. May be "
                 "given several times."),
    click.option("--host", "hosts", multiple=True, help="Host name of the route. May be given several times."),
    click.option(
        "--upstream", "upstreams", multiple=True, default=["127.0.0.1:1980"], show_default=True,
        metavar="[SCHEME://]HOST:PORT", help="Where the route's requests go. May be given several times.",
    ),
)  # fmt: skip
_home = click.option(
    "--home", default="/opt/gate", show_default=True,
    help="Folder where the code is deployed, with its virtual environment in .venv.",
)  # fmt: skip
_uds = click.option("--uds", default="/run/gate/runner.sock", show_default=True, help="Socket of the runner.")
_sidecar = click.option(
    "--sidecar", is_flag=True, help="The runner runs beside APISIX, with the socket --uds. Without it APISIX starts it."
)
_image = click.option("--image", help="Image of the runner.  [default: NAME:1]")
_stand_in = click.option(
    "--example-upstream", is_flag=True, help="Add a service at 127.0.0.1:1980, which stands in for yours."
)
_workers = click.option(
    "--workers", type=DeployedWorkers(), default="auto", show_default=True,
    help="Processes that serve; auto: one for each core that the runner may use there.",
)  # fmt: skip
_deployed = _options(source_options, _home, _uds, _workers)
_admin_port = click.option(
    "--admin-port", type=click.IntRange(1, 65535),
    help="The runner serves metrics at this port of the pod, and the readiness probe asks there. Needs the extra "
    "metrics in the image.",
)  # fmt: skip


@click.group()
def generate() -> None:
    """Print a file for an operator.

    Routes have the plugins of TARGET, with configurations that the plugins accept. The other files start the runner
    with TARGET.
    """


def _ext_plugins(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Load the plugins, and put them into the lists of a route."""
    from ..generate.lists import ext_plugins

    read_environment(options["env_file"])
    mounted = _source(options).load()
    return ext_plugins(mounted, options["chosen"], post_req=options["post_req"], post_resp=options["post_resp"])


def _source(options: dict[str, Any]) -> "Source":
    return find_source(options["target"], options["mounts"], options["app_dir"], options["allow"])


def _made_route(options: dict[str, Any]) -> "Route":
    from ..generate.routes import Route, upstream_of
    from ..generate.runner import checked_name

    for uri in options["uris"]:
        if not uri.startswith("/"):
            raise ConfigurationError(f"--uri {uri}: a path begins with a slash")
    upstream = upstream_of(options["upstreams"])
    name = checked_name(options["name"])
    return Route(name, options["uris"], options["hosts"], _ext_plugins(options), upstream)


def _runner(options: dict[str, Any], *, sidecar: bool = True, private: bool = False) -> "Deployed":
    from ..generate.runner import Deployed, checked_path

    home = checked_path("--home", options["home"])
    uds = _socket(options, sidecar=sidecar)
    return Deployed(_source(options), home, uds, private and sidecar, options["workers"], options.get("admin_port"))


def _socket(options: dict[str, Any], *, sidecar: bool) -> str | None:
    """Return the path of the runner's socket; None: APISIX chooses it."""
    from ..generate.runner import checked_path

    if sidecar:
        return checked_path("--uds", options["uds"].removeprefix("unix:"))
    _refuse(["uds"], "is for --sidecar: without it APISIX starts the runner, and chooses the socket")
    return None


def _refuse(names: list[str], why: str) -> None:
    """Refuse options that would change nothing in what is printed."""
    context = click.get_current_context()
    for each in context.command.params:
        if each.name in names and is_given(each.name):
            raise ConfigurationError(f"{each.opts[0] if each.opts[0].startswith('-') else each.opts[0].upper()} {why}")


def _print(text: str) -> None:
    click.echo(text, nl=False)


@generate.command()
@_route
def route(**options: Any) -> None:
    """A route as JSON, for PUT /apisix/admin/routes/NAME of the Admin API."""
    from ..generate.routes import admin_json

    _print(admin_json(_made_route(options)))


@generate.command()
@_route
def standalone(**options: Any) -> None:
    """A route as apisix.yaml, for APISIX's standalone mode."""
    from ..generate.routes import standalone as text_of

    _print(text_of(_made_route(options)))


@generate.command()
@_route
def adc(**options: Any) -> None:
    """A route as YAML for adc sync."""
    from ..generate.routes import adc as text_of

    _print(text_of(_made_route(options)))


@generate.command("plugin-config")
@_plugins
@_name
@click.option("--ingress-class", default="apisix", show_default=True, help="Class of the ingress controller.")
def plugin_config(ingress_class: str, **options: Any) -> None:
    """An ApisixPluginConfig, for the ingress controller of Kubernetes."""
    from ..generate.routes import plugin_config as text_of
    from ..generate.runner import checked_name

    _print(text_of(checked_name(options["name"]), ingress_class, _ext_plugins(options)))


@generate.command()
@_deployed
@_sidecar
@click.option("--standalone", "is_standalone", is_flag=True, help="The whole file: routes come from conf/apisix.yaml.")
@click.option(
    "--env", multiple=True, metavar="NAME",
    help="Environment variable that APISIX passes on to the runner. May be given several times.",
)  # fmt: skip
def config(sidecar: bool, is_standalone: bool, env: tuple[str, ...], **options: Any) -> None:
    """The part of APISIX's config.yaml that is about the runner."""
    from ..generate.apisix import config_yaml

    if sidecar:
        _refuse(["env"], "is not for --sidecar: such a runner has the environment of its own process")
        _refuse(
            ["target", "mounts", "allow", "home", "workers"],
            "is not for --sidecar: this file then has the socket alone",
        )
    _print(config_yaml(_runner(options, sidecar=sidecar), standalone=is_standalone, env=env))


@generate.command()
@_deployed
@_name
@_sidecar
@click.option(
    "--copy", "copied", multiple=True, metavar="PATH",
    help="File or folder of your code, beside the Dockerfile. May be given several times.  [default: the modules of "
    "TARGET and --mount in --app-dir]",
)  # fmt: skip
@click.option(
    "--requirements", default="requirements.txt", show_default=True, metavar="PATH",
    help="What pip installs, asgi_bridge among it.",
)  # fmt: skip
@click.option("--wheels", metavar="PATH", help="Folder with wheels that pip may install.")
def dockerfile(
    sidecar: bool, copied: tuple[str, ...], requirements: str, wheels: str | None, **options: Any
) -> None:  # fmt: skip
    """A Dockerfile: of the runner, or of APISIX with the runner."""
    from ..generate.docker import dockerfile as text_of
    from ..generate.docker import modules_of
    from ..generate.runner import checked_name

    if not sidecar:
        _refuse(["allow", "workers"], "is not for this file: APISIX starts the runner, and config.yaml has its command")
    runner = _runner(options, sidecar=sidecar, private=True)
    name = checked_name(options["name"])
    _print(text_of(name, runner, copied or modules_of(runner.source), requirements, wheels))


@generate.command()
@_name
@_sidecar
@_uds
@_stand_in
def compose(sidecar: bool, example_upstream: bool, **options: Any) -> None:
    """A compose.yaml, for the Dockerfile."""
    from ..generate.docker import compose as text_of
    from ..generate.runner import checked_name

    name = checked_name(options["name"])
    _print(text_of(name, _socket(options, sidecar=sidecar), upstream=example_upstream))


@generate.command()
@_deployed
@_admin_port
@_name
@_image
@click.option("--replicas", type=click.IntRange(min=1), default=2, show_default=True, help="Number of pods.")
@_stand_in
def kubernetes(image: str | None, replicas: int, example_upstream: bool, **options: Any) -> None:
    """A Deployment of APISIX with the runner as its sidecar, and a Service."""
    from ..generate.kubernetes import manifest
    from ..generate.runner import checked_name

    name = checked_name(options["name"])
    _print(
        manifest(
            name, _runner(options, private=True), image or f"{name}:1", replicas=replicas, upstream=example_upstream
        )
    )


@generate.command()
@_deployed
@_admin_port
@_name
@_image
def helm(image: str | None, **options: Any) -> None:
    """Values for APISIX's Helm chart, with the runner as a sidecar."""
    from ..generate.kubernetes import helm_values
    from ..generate.runner import checked_name

    name = checked_name(options["name"])
    _print(helm_values(name, _runner(options, private=True), image or f"{name}:1"))


@generate.command()
@_deployed
@_name
def systemd(**options: Any) -> None:
    """A unit of systemd, for a runner beside APISIX on one machine."""
    from ..generate.runner import checked_name
    from ..generate.systemd import systemd_unit

    _print(systemd_unit(checked_name(options["name"]), _runner(options)))
