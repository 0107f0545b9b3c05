"""``asgi-bridge plugins``: lists the plugins and what a route may configure."""

import json

import click

from .options import env_file_option, find_source, read_environment, source_options

__all__ = ["plugins"]


@click.command()
@source_options
@env_file_option
@click.option("--json", "as_json", is_flag=True, help="Name, kind, phase and JSON Schema of each, as JSON.")
def plugins(
    target: str | None, mounts: tuple[tuple[str, str], ...], allow: tuple[str, ...], app_dir: str,
    env_file: str | None, as_json: bool,
) -> None:  # fmt: skip
    """List the plugins and what a route may configure."""
    read_environment(env_file)
    mounted = find_source(target, mounts, app_dir, allow).load()
    described = [plugin.describe() for plugin in mounted.values()]
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    width = max(len(each["name"]) for each in described)
    for each in described:
        required = set(each["schema"].get("required", ()))
        fields = [name if name in required else f"[{name}]" for name in each["schema"].get("properties", {})]
        line = f"{each['name']:<{width}}  {each['kind']:<11}  {each['phase']:<8}  {' '.join(fields)}"
        click.echo(line.rstrip())
