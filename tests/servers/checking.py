"""What Prometheus' own checker says of a page of metrics."""

from __future__ import annotations

import subprocess
from pathlib import Path


def check_page(promtool: Path, page: bytes) -> None:
    """Raises `AssertionError` with whatever promtool has to say."""
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
