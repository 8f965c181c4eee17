"""One command of a module, ordered by a person or a program outside of any workflow, as a run of one step.

So it has the record, the audit entry, the retries and the undo (by cancelling the run) that the same command has in a
workflow. The API checks the command's permission and payload before it starts the run.
"""

from __future__ import annotations

from typing import Any

from engine.plan.code import Run, saga


@saga("direct-command", version=1, attributes={"action": "/action"}, personal=("/input",))
async def direct_command(run: Run, order: dict[str, Any]) -> Any:
    return await run.step("command", order["action"], **order["input"])
