"""A container's health check: `python -m scripts.probe process` asks /readyz on the probe port, which every process
has, `python -m scripts.probe web` on the port of the API. Exit code 0 or 1, the objection on standard error. Called by
compose.yaml; orchestrators with HTTP probes ask /readyz themselves."""

from __future__ import annotations

import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

from engine.settings import load

SECONDS = 4.0


def main(arguments: Sequence[str]) -> int:
    """0 ready, 1 not ready, 2 asked wrongly."""
    match list(arguments):
        case ["web"]:
            objection = ready(load().http.port)
        case ["process"]:
            objection = ready(load().http.probe_port)
        case _:
            print("usage: python -m scripts.probe process | web", file=sys.stderr)
            return 2
    if objection is None:
        return 0
    print(objection, file=sys.stderr)
    return 1


def ready(port: int) -> str | None:
    """What /readyz on this port objects to; None when it is ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=SECONDS):
            return None
    except urllib.error.HTTPError as answer:
        return f"not ready ({answer.code}): {answer.read(2000).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return f"no answer on port {port}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
