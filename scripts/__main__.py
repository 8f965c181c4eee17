"""`python -m scripts <verb>` and the `unwind` command."""

from __future__ import annotations

import sys

from scripts.cli import main as run


def main() -> None:
    """Run the CLI and end the process with its exit code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
