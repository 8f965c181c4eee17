"""Scripted failures of the shipped modules, for demos and tests: `ScriptFaultV1` says how the next commands fail.

Every module obeys that command; one that was started without rehearsals refuses it and never looks at the table.
"""

from __future__ import annotations

from contracts.manifest import Command
from contracts.modules.faults import FaultScriptedV1, ScriptFaultV1
from contracts.sdk import Call, Refused, Retryable, Service, Tx, Unanswered
from contracts.sdk.outbox import Outgoing
from contracts.sdk.statements import statements

SQL = statements("rehearsal.sql", "consumers.modules")


class ScriptedCrash(Exception):
    """An error nobody declared, as asked for."""


class Rehearsal:
    """One module's scripted failures."""

    def __init__(self, service: Service, *, allowed: bool) -> None:
        self._service = service
        self._allowed = allowed
        self._commands = {command.model.__name__ for command in service.module.commands} - {ScriptFaultV1.__name__}
        self._after: dict[str, str] = {}
        service.handles(ScriptFaultV1)(self.script)
        if allowed:
            service.rehearse(self.before, self.answering)

    async def script(self, command: ScriptFaultV1, call: Call, tx: Tx) -> FaultScriptedV1:
        if not self._allowed:
            raise Refused("rehearsals_off", "start the module with rehearsals to script its failures")
        if command.command not in self._commands:
            raise Refused("unknown_command", f"module {call.module.name} has no command of that name")
        if command.times == 0:
            await tx.run(SQL["clear"], call.tenant, command.command)
        else:
            key_part = command.key or ""
            await tx.run(
                SQL["script"],
                f"{call.tenant}/{command.command}/{key_part}",
                call.tenant,
                command.command,
                key_part,
                command.mode,
                command.times,
                command.code,
            )
        return FaultScriptedV1(command=command.command, mode=command.mode, times=command.times)

    async def before(self, call: Call, command: Command) -> None:
        if command.model is ScriptFaultV1:
            return
        fault = await self._take(call, command.model.__name__)
        if fault is None:
            return
        mode, code = fault
        match mode:
            case "retryable":
                raise Retryable(code, "a scripted failure; try again")
            case "irrecoverable":
                raise Refused(code, "a scripted failure; no retry will help")
            case "crash":
                raise ScriptedCrash(code)
            case "silent":
                raise Unanswered("a scripted silence")
            case _:
                self._after[call.envelope.id] = mode

    def answering(self, call: Call, messages: list[Outgoing]) -> list[Outgoing]:
        mode = self._after.pop(call.envelope.id, None)
        facts = [message for message in messages if not message.reply]
        replies = [message for message in messages if message.reply]
        match mode:
            case "mute":
                return facts
            case "twice":
                return [*messages, *replies]
            case "garbage":
                return [*facts, *(_garbled(reply) for reply in replies)]
            case _:
                return messages

    async def _take(self, call: Call, command: str) -> tuple[str, str] | None:
        """Uses up one of the scripted failures that match, in a transaction of its own: the failure it causes rolls
        the command's back.
        """
        async with self._service.database.transaction() as tx:
            for row in await tx.rows(SQL["scripted"], call.tenant, command):
                if row["key_part"] in call.key and await tx.run(SQL["use"], row["id"]):
                    return row["mode"], row["code"]
        return None


def _garbled(reply: Outgoing) -> Outgoing:
    return Outgoing(
        event_id=reply.event_id,
        exchange=reply.exchange,
        routing_key=reply.routing_key,
        body=b'{"specversion": "1.0", "garbage',
        reply=True,
    )
