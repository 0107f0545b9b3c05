"""``asgi-bridge completion``: prints a script that makes a shell complete this command line."""

import click

__all__ = ["completion"]

COMPLETE_VARIABLE = "_ASGI_BRIDGE_COMPLETE"
"""Environment variable in which click expects the shell's question."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script for a shell that completes commands, options and their values.

    \b
    bash:  asgi-bridge completion bash > ~/.local/share/bash-completion/completions/asgi-bridge
    zsh:   asgi-bridge completion zsh > ~/.zfunc/_asgi-bridge   (a folder of your $fpath)
    fish:  asgi-bridge completion fish > ~/.config/fish/completions/asgi-bridge.fish

    The script asks asgi-bridge at each press of the tab key, so a newer version needs no new script.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "click knows these three shells"
    made = found(ctx.find_root().command, {}, "asgi-bridge", COMPLETE_VARIABLE)
    # not made.source(): that of bash starts a bash to see its version, and this script may be for another machine
    click.echo(made.source_template % made.source_vars())
