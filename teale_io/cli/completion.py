"""`teale completion`: the script that makes a shell complete `teale`'s commands, options and keys."""

import click
from click.shell_completion import get_completion_class

VARIABLE = "_TEALE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    r"""Print the completion script of a SHELL.

    \b
    bash: add to ~/.bashrc:   eval "$(teale completion bash)"
    zsh:  add to ~/.zshrc:    eval "$(teale completion zsh)"
    fish: teale completion fish > ~/.config/fish/completions/teale.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "teale", VARIABLE).source())
