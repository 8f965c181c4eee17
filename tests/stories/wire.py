"""The wire out of this machine, cut: what would leave it is noted and refused, so that no test ever speaks to a
stranger, wherever it is run.
"""

from __future__ import annotations

from asyncio.selector_events import BaseSelectorEventLoop
from ipaddress import ip_address
from typing import Any

import pytest


class CutWire:
    """From its making to the end of the test. Connections on loopback are made as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[str] = []
        """Address and port of every connection that was refused, in order."""
        connect = BaseSelectorEventLoop.sock_connect

        async def sock_connect(loop: BaseSelectorEventLoop, sock: Any, address: Any) -> Any:
            if isinstance(address, tuple) and not ip_address(address[0]).is_loopback:
                self.tried.append(f"{address[0]}:{address[1]}")
                raise ConnectionRefusedError("nothing leaves this machine")
            return await connect(loop, sock, address)

        monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", sock_connect)
