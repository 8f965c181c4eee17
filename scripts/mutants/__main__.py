"""`python -m scripts.mutants [NAME ...]`: runs all mutants, or those whose name contains one of the given words; exit
code 1 when one is not killed. `--list` only names them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.problems import NotFound, Problem
from scripts.border import tell, tell_line
from scripts.mutants.catalog import MUTANTS
from scripts.mutants.run import Mutant, Verdict, hunt
from scripts.provision import servers


def main(arguments: list[str]) -> int:
    options = {argument for argument in arguments if argument.startswith("-")}
    if options & {"-h", "--help"}:
        print(__doc__)
        return 0
    if unknown := sorted(options - {"--list"}):
        return tell_line("bad_input", f"no such option: {unknown[0]} (there is --list)", 2, as_json=False)
    words = [argument for argument in arguments if argument not in options]
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    try:
        if not chosen:
            raise NotFound(f"no mutant is called {' or '.join(words)}; see --list", field="NAME")
        if "--list" in options:
            for mutant in chosen:
                print(f"{mutant.name:34} {mutant.law}")
            return 0
        with _servers(chosen):
            verdicts = hunt(chosen, _tell)
    except Problem as problem:
        return tell(problem, as_json=False)
    killed = sum(verdict.fate == "killed" for verdict in verdicts)
    print(f"{killed} of {len(verdicts)} mutants killed")
    return 0 if killed == len(verdicts) else 1


@contextmanager
def _servers(chosen: list[Mutant]) -> Iterator[None]:
    """The servers that the tests of these mutants need: those of the environment, else private ones."""
    needs = {need for mutant in chosen for need in mutant.needs}
    if not needs:
        yield
        return
    with servers(postgres="postgres" in needs, rabbitmq="rabbitmq" in needs) as private:
        os.environ.update(private.environment())
        yield


def _tell(verdict: Verdict) -> None:
    detail = "" if verdict.fate == "killed" else f"  {verdict.detail}"
    print(f"{verdict.fate:9} {verdict.mutant.name:34} {verdict.mutant.law}{detail}", flush=True)


if __name__ == "__main__":
    # An end from outside takes the private servers down, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
