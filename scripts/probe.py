"""A container's health check: `python -m scripts.probe web|process` asks the process beside it whether it is ready,
`python -m scripts.probe module NAME` asks the broker whether somebody takes that module's commands. Exit code 0 or 1.
It changes nothing. Called by compose.yaml; orchestrators with HTTP probes ask /readyz themselves."""

from __future__ import annotations

import asyncio
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

from engine.settings import Settings, load

SECONDS = 4.0


def main(arguments: Sequence[str]) -> int:
    """0 ready, 1 not ready, 2 asked wrongly."""
    match list(arguments):
        case ["web"]:
            refusal = ready(load().http.port)
        case ["process"]:
            refusal = ready(load().http.probe_port)
        case ["module", name]:
            refusal = asyncio.run(consumed(load(), name))
        case _:
            print("usage: python -m scripts.probe web | process | module NAME", file=sys.stderr)
            return 2
    if refusal is not None:
        print(refusal, file=sys.stderr)
    return 0 if refusal is None else 1


def ready(port: int) -> str | None:
    """What /readyz on this port objects to; None when it is ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=SECONDS):
            return None
    except urllib.error.HTTPError as answer:
        return f"not ready ({answer.code}): {answer.read(2000).decode(errors='replace')}"
    except OSError as error:
        return f"no answer on port {port}: {error}"


async def consumed(settings: Settings, module: str) -> str | None:
    """Why nobody takes this module's commands; None when somebody does."""
    import aio_pika
    from aio_pika.exceptions import AMQPError

    from contracts.sdk.topology import module_queue

    if settings.bus_url is None:
        return "UNWIND_BUS_URL is not set; on the embedded bus a module is part of `unwind up`"
    queue = module_queue(module)
    try:
        async with asyncio.timeout(SECONDS):
            connection = await aio_pika.connect(settings.bus_url.get_secret_value())
            async with connection:
                channel = await connection.channel()
                found = await channel.declare_queue(queue, passive=True)
                consumers = found.declaration_result.consumer_count
    except (AMQPError, OSError) as error:
        return f"queue {queue} cannot be asked: {error!r}"
    return None if consumers else f"nobody consumes {queue}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
