"""Verbs that measure and prove: `bench`, `chaos`, `acceptance`. They need a checkout or servers of their own and never
touch a running engine."""

from __future__ import annotations

import typer

from scripts.answer import Answer, stacked, table
from scripts.border import verb


def register(app: typer.Typer) -> None:
    verb(app, "acceptance")(acceptance)
    verb(app, "bench")(bench)
    verb(app, "chaos")(chaos)


def acceptance(
    check: bool = typer.Option(False, "--check", help="Exit with 1 unless every row passed on its stacks."),
) -> Answer:
    """The acceptance rows after the last tests."""
    from scripts.acceptance import STACKS, read_results, read_rows, states, summary

    rows, results = read_rows(), read_results()
    found = states(rows, results)
    document = {
        "tested_from": min((result.at for result in results), default=None),
        "tested_at": max((result.at for result in results), default=None),
        "rows": [
            {
                "row": row.id,
                "capability": row.capability,
                "proof": row.proof,
                "states": found[row.id],
                "tests": sum(row.id in result.rows for result in results),
            }
            for row in rows
        ],
    }
    passed = sum(all(state == "pass" for state in found[row.id].values()) for row in rows)
    lines = [(row.id, *(found[row.id].get(stack, "-") for stack in STACKS), row.capability) for row in rows]
    failed = check and passed < len(rows)
    return Answer(
        document,
        stacked(
            table(("ROW", *(stack.upper() for stack in STACKS), "CAPABILITY"), lines), "\n" + summary(found, results)
        ),
        1 if failed else 0,
    )


def bench(
    figure: list[str] = typer.Option([], "--only", help="Measure only this figure; may be given several times."),
    quick: bool = typer.Option(
        False, "--quick", help="One short round instead of three: a smoke test, not a measurement."
    ),
    peer: str = typer.Option("dbos", "--peer", help="The peer to compare with: dbos or none."),
    postgres_url: str = typer.Option(
        "", "--postgres", help="A PostgreSQL whose role may create databases; default: a private one."
    ),
    rabbitmq_url: str = typer.Option(
        "", "--rabbitmq", help="A RabbitMQ whose user may create virtual hosts; default: a private one."
    ),
    write: bool = typer.Option(
        False, "--write", help="Write the table to docs/performance.md; with --only, the rows of these."
    ),
) -> Answer:
    """Measure speed as ratios taken in one run."""
    from contracts.problems import NotFound

    try:
        from scripts.bench.report import bench as measure
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith("scripts."):
            raise
        raise NotFound("the bench needs scripts/provision; run this verb in a checkout of the project") from None
    return measure(figure, quick=quick, peer=peer, postgres_url=postgres_url, rabbitmq_url=rabbitmq_url, write=write)


def chaos(
    smoke: bool = typer.Option(
        False, "--smoke", help="The short set, as the tests play it; default: the standard set."
    ),
    embedded: bool = typer.Option(False, "--embedded", help="Only the embedded stack."),
    production: bool = typer.Option(False, "--production", help="Only PostgreSQL and RabbitMQ, private ones."),
    cluster: bool = typer.Option(
        False, "--cluster", help="Only three RabbitMQ nodes that form a cluster; not in the short set unless asked for."
    ),
    only: list[str] = typer.Option([], "--only", help="Only this fault; may be given several times."),
    seed: int = typer.Option(1, "--seed", help="Which orders come, and which faults when."),
    list_faults: bool = typer.Option(False, "--list", help="Say which faults there are, and break nothing."),
    write: bool = typer.Option(False, "--write", help="Write the tables to docs/reliability.md."),
) -> Answer:
    """Break processes and servers while orders come in, and see that every law holds.

    Everything it breaks it has started itself, on this machine alone, and takes down again.
    """
    from contracts.problems import NotFound

    try:
        from scripts.chaos.report import chaos as measure
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith("scripts."):
            raise
        raise NotFound("chaos needs scripts/provision; run this verb in a checkout of the project") from None
    asked = {"embedded": embedded, "production": production, "cluster": cluster}
    every = [stack for stack in asked if not smoke or stack != "cluster"]
    return measure(
        smoke=smoke,
        stacks=[stack for stack in asked if asked[stack]] or every,
        only=only,
        seed=seed,
        write=write,
        list_only=list_faults,
    )
