"""Plays worlds, many of them or one, and says which law was broken, if any was."""

from __future__ import annotations

import argparse
import sys

from scripts.simulation.report import cores, play_seeds, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many worlds to play")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--jobs", type=int, default=cores(), help="how many processes; default: one a core")
    parser.add_argument(
        "--seed", type=int, default=None, help="play this one world, and tell and shrink what it breaks"
    )
    given = parser.parse_args()
    if given.seed is not None:
        told, faults = shrink(given.seed)
        print(*faults, sep="\n")
        print(f"seed {told.seed}: {told.violation or 'every law held'}")
        return 0 if told.violation is None else 1
    report = play_seeds(range(given.first, given.first + given.seeds), jobs=given.jobs)
    print(*report.lines(), sep="\n")
    return 0 if not report.failed else 1


if __name__ == "__main__":
    sys.exit(main())
