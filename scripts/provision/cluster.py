"""Three RabbitMQ nodes on one machine that form a cluster, in which quorum queues have three copies. One of them can be
killed, or cut off from the others: its cookie is swapped, so that no node takes it for one of its own, and its
connections to them are ended. Not for speed: three nodes cost half a gigabyte. Called by servers().
"""

from __future__ import annotations

import secrets
from typing import Final

from scripts.provision.places import Instance
from scripts.provision.rabbitmq import Epmd, RabbitmqPrograms, RabbitmqServer, Secrets, node_name

NODES: Final = 3
_STRANGE: Final = "STRANGER"


class RabbitmqCluster:
    """`nodes` are its members; as a server it is the first of them that runs."""

    def __init__(self, programs: RabbitmqPrograms, instance: Instance) -> None:
        mark = secrets.token_hex(3)
        self._epmd, self._shared = Epmd(programs, instance), Secrets()
        names = [node_name(number, mark) for number in range(NODES)]
        self.nodes = [
            RabbitmqServer(programs, instance, name=name, peers=names, epmd=self._epmd, shared=self._shared)
            for name in names
        ]

    @property
    def _first(self) -> RabbitmqServer:
        return next((node for node in self.nodes if node.running), self.nodes[0])

    @property
    def url(self) -> str:
        return self._first.url

    @property
    def management_url(self) -> str:
        return self._first.management_url

    @property
    def origin(self) -> str:
        return self._first.origin

    @property
    def running(self) -> bool:
        return any(node.running for node in self.nodes)

    def rabbitmqctl(self, *arguments: str, timeout: float = 60) -> str:
        return self._first.rabbitmqctl(*arguments, timeout=timeout)

    def start(self) -> None:
        """One after the other: the first begins the cluster, each further one joins it."""
        for node in self.nodes:
            node.start()

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.stop()
        self._epmd.kill()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def discard(self) -> None:
        for node in self.nodes:
            node.discard()
        self._epmd.kill()

    def cut_off(self, node: RabbitmqServer) -> None:
        """No other node reaches it, nor it them. It is the minority, and pauses."""
        others = ", ".join(f"'{other.node}'" for other in self.nodes if other is not node)
        node.rabbitmqctl(
            "eval", f"erlang:set_cookie(node(), '{_STRANGE}'), [erlang:disconnect_node(N) || N <- [{others}]]."
        )

    def rejoin(self, node: RabbitmqServer) -> None:
        """It is one of theirs again; it notices by itself."""
        own = self._shared.cookie
        node.rabbitmqctl("--erlang-cookie", _STRANGE, "eval", f"erlang:set_cookie(node(), '{own}').")

    def members(self) -> list[str]:
        """The nodes that take part now, as the first running one sees it."""
        told = self.rabbitmqctl("eval", '[io:format("~s~n", [N]) || N <- rabbit_mnesia:cluster_nodes(running)], ok.')
        return [line for line in told.splitlines() if "@" in line]
