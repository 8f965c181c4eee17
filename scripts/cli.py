"""The `unwind` command: which verbs there are and how they are grouped. No verb's work is here, and nothing heavy is
imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer import TyperException

from contracts.version import __version__
from scripts.answer import whole
from scripts.border import tell_line
from scripts.verbs import (
    archive,
    audit,
    backups,
    blueprints,
    bulk,
    configuration,
    contracts,
    deadletters,
    egress,
    engine,
    hooks,
    keys,
    outlets,
    pauses,
    platform,
    policies,
    projections,
    proofs,
    quotas,
    runs,
    secrets,
    subjects,
    tenants,
    tokens,
    users,
)

app = typer.Typer(
    name="unwind",
    help="An event-sourced saga engine over a message bus: run it, watch it, repair it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Framed help costs a tenth of a second more than plain help.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
engine.register(app)
app.add_typer(runs.app, name="runs")
runs.register(app)
bulk.register(app)
app.add_typer(deadletters.app, name="deadletters")
platform.register(app)
projections.register(app)
app.add_typer(projections.app, name="projections")
backups.register(app)
pauses.register(app)
app.add_typer(pauses.app, name="maintenance")
app.add_typer(subjects.app, name="subjects")
app.add_typer(archive.app, name="archive")
app.add_typer(secrets.app, name="secrets")
app.add_typer(audit.app, name="audit")
app.add_typer(egress.app, name="egress")
app.add_typer(keys.app, name="keys")
app.add_typer(policies.app, name="policies")
app.add_typer(tokens.app, name="tokens")
app.add_typer(users.app, name="users")
app.add_typer(users.invitations, name="invitations")
app.add_typer(hooks.app, name="hooks")
app.add_typer(outlets.app, name="outlets")
app.add_typer(tenants.app, name="tenants")
app.add_typer(quotas.app, name="quotas")
app.add_typer(contracts.app, name="contracts")
app.add_typer(blueprints.app, name="blueprints")
app.add_typer(configuration.app, name="config")
proofs.register(app)


def _tell_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit(0)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Options of every verb; an eager callback answers --version before a verb is missed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line to its exit code; a mistake in it is one line, like every other problem."""
    sys.stdout = whole(sys.stdout)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        answer = app(given, prog_name="unwind", standalone_mode=False)
    except TyperException as mistake:
        # With no arguments, help was printed and the message is empty.
        detail = mistake.format_message()
        where = getattr(mistake, "ctx", None)
        remedy = f" (see `{where.command_path} --help`)" if where is not None else ""
        return tell_line("bad_input", f"{detail}{remedy}", 2, as_json="--json" in given) if detail else 2
    except (KeyboardInterrupt, EOFError):
        return 130
    return answer if isinstance(answer, int) else 0
