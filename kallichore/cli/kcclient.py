"""The ``kcclient`` command: run code, and look after a server's sessions, from a terminal or a script.

Its commands are in `kallichore.cli.commands`, its exit codes in `kallichore.cli.exit_codes`.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kallichore._version import __version__
from kallichore.cli.commands import agents, channels, code, kept, server, sessions
from kallichore.cli.exit_codes import INTERRUPTED
from kallichore.cli.target import TOKEN_VARIABLE, Target, token_for
from kallichore.client.address import DEFAULT_URL


class _Group(click.Group):
    """A group of commands in which Ctrl-C ends as everywhere, also while arguments or standard input are read."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-u", "--url", envvar="KALLICHORE_URL",
    help=f"The server, Kallichore's or any Jupyter server: http://host:port or unix:/path [{DEFAULT_URL}].",
)  # fmt: skip
@click.option(
    "-c",
    "--connection-file",
    type=click.Path(path_type=Path),
    envvar="KALLICHORE_CONNECTION_FILE",
    help="The server's connection file.",
)
@click.option(
    "-t", "--token", envvar=TOKEN_VARIABLE,
    help="The server's token; else the URL's, or that in KALLICHORE_TOKEN or JUPYTER_TOKEN.",
)  # fmt: skip
@click.version_option(__version__, "-V", "--version", prog_name="kcclient", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, url: str | None, connection_file: Path | None, token: str | None) -> None:
    """Run code in supervised Jupyter kernels, and look after the sessions of a server."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A letter that the terminal lacks is no reason to lose all that follows.
            stream.reconfigure(errors="replace")
    typed = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if {"url", "connection_file"} <= typed:
        raise click.UsageError("--url and --connection-file are two ways to name the server; give one of them")
    if "url" in typed:
        connection_file = None
    # A connection file's own token is right, and so is that in a URL; one in the environment is for a URL without.
    first, other = (token, None) if "token" in typed else (None, token_for(url, token))
    context.obj = Target(url, connection_file, first, other)


for _command in (
    *(*code.COMMANDS, *channels.COMMANDS),
    *(*sessions.COMMANDS, *kept.COMMANDS, *server.COMMANDS, *agents.COMMANDS),
):
    main.add_command(_command)
main.add_command(channels.connect, "listen")


if __name__ == "__main__":
    main()
