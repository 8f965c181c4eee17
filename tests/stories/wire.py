"""The wire out of this machine, cut: what would leave it is noted and refused, so that no test ever speaks to a
stranger, wherever it is run.
"""

from __future__ import annotations

import socket
from asyncio.selector_events import BaseSelectorEventLoop
from ipaddress import ip_address
from typing import Any
from weakref import WeakKeyDictionary

import pytest


class CutWire:
    """From its making to the end of the test. Connections on loopback are made as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[str] = []
        """Address and port of every connection that was refused, in order."""
        self.leads: dict[str, str] = {}
        """Of an address and port outside, who stands there after all, on loopback; to the caller it is the far one."""
        connect, getpeername = BaseSelectorEventLoop.sock_connect, socket.socket.getpeername
        far: WeakKeyDictionary[socket.socket, Any] = WeakKeyDictionary()

        async def sock_connect(loop: BaseSelectorEventLoop, sock: Any, address: Any) -> Any:
            if isinstance(address, tuple) and not ip_address(address[0]).is_loopback:
                place = f"{address[0]}:{address[1]}"
                if place not in self.leads:
                    self.tried.append(place)
                    raise ConnectionRefusedError("nothing leaves this machine")
                host, _, port = self.leads[place].rpartition(":")
                far[sock] = address
                address = (host, int(port))
            return await connect(loop, sock, address)

        def told(sock: socket.socket) -> Any:
            return far[sock] if sock in far else getpeername(sock)

        monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", sock_connect)
        monkeypatch.setattr(socket.socket, "getpeername", told)
