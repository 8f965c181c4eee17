"""`python -m scripts.provision`: `run -- COMMAND` runs a command with throw-away servers in its environment; `up
--env-file FILE` keeps a pair until it is ended by SIGTERM or Ctrl-C and writes a file to source. Called by
scripts/test and by people."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from scripts.provision import NoServers, ServerFailed, Servers, servers
from scripts.provision.places import cache_folder, sweep

NO_SERVERS = 69


class _Ended(Exception):
    pass


def _end(number: int, frame: FrameType | None) -> None:
    # Taking the servers down must not be interrupted half-way by a second signal.
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise _Ended(signal.Signals(number).name)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _announce(pair: Servers, began: float) -> None:
    _say(
        f"throw-away servers after {time.monotonic() - began:.1f} s: PostgreSQL ({pair.postgres.origin}), "
        f"RabbitMQ ({pair.rabbitmq.origin})"
    )


def _run(command: list[str], durable: bool) -> int:
    began = time.monotonic()
    with servers(durable=durable) as pair:
        _announce(pair, began)
        child = subprocess.Popen(command, env={**os.environ, **pair.environment()})
        try:
            return child.wait()
        except _Ended:
            _end_child(child)
            return 130
        finally:
            # Processes of the command that were killed may have left servers of their own.
            sweep(cache_folder() / "instances")


def _end_child(child: subprocess.Popen[bytes]) -> None:
    """SIGINT first: pytest then says what had failed so far and lets its fixtures take their servers down."""
    for number, seconds in ((signal.SIGINT, 30), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        child.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
            return


def _up(env_file: Path | None, durable: bool) -> int:
    began = time.monotonic()
    with servers(durable=durable, given=False) as pair:
        _announce(pair, began)
        lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in pair.environment().items())
        print(lines, end="", flush=True)
        if env_file is not None:
            draft = env_file.with_name(env_file.name + ".new")
            draft.write_text(lines)
            draft.chmod(0o600)
            draft.rename(env_file)
        try:
            while True:
                signal.pause()
        except _Ended:
            return 0
        finally:
            if env_file is not None:
                env_file.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the command; 69 when no source can give the servers."""
    parser = argparse.ArgumentParser(prog="python -m scripts.provision", description=__doc__)
    parser.add_argument("--durable", action="store_true", help="keep fsync on, for measurements")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="run a command with servers in its environment")
    run.add_argument("command", nargs=argparse.REMAINDER)
    up = verbs.add_parser("up", help="keep a pair until ended")
    up.add_argument("--env-file", type=Path)
    asked = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    try:
        if asked.verb == "up":
            return _up(asked.env_file, asked.durable)
        command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
        if not command:
            parser.error("run needs a command after --")
        return _run(command, asked.durable)
    except (NoServers, ServerFailed) as why:
        _say(f"no throw-away servers: {why}")
        return NO_SERVERS
    except _Ended:
        return 130


if __name__ == "__main__":
    sys.exit(main())
