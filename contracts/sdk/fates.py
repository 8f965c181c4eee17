"""What became of a command, as its module remembers it: the answer to a question that derives from `FateQueryModel`.

What the SDK remembers is answered without asking the module's handler: a success with its receipt, a refusal as not
happened. With `closing`, "it did not happen" is made true for ever: a tombstone refuses the order when it comes late.
Called by `contracts.sdk.queries`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from contracts.envelope import parse
from contracts.manifest import FateModel, FateQueryModel
from contracts.sdk.database import Row, Tx
from contracts.sdk.statements import statements


class Fates:
    """Over the table of handled keys, in the transaction of the question."""

    def __init__(self, dialect: str) -> None:
        self._sql = statements(f"module.{dialect}.sql")

    async def remembered(
        self, tx: Tx, question: FateQueryModel, answer: type[FateModel[Any]], tenant: str
    ) -> FateModel[Any] | None:
        """The answer, if the key is known; None: only the module's handler can tell."""
        row = await tx.row(self._sql["find_handled"], tenant, question.key)
        return None if row is None else _answer(row, answer)

    async def close(
        self, tx: Tx, question: FateQueryModel, answer: type[FateModel[Any]], tenant: str, kind: str
    ) -> FateModel[Any]:
        """Refuses the order from now on. If it was obeyed in this very moment, that is the answer instead."""
        claimed = await tx.run(
            self._sql["claim_key"],
            tenant,
            question.key,
            question.command_id,
            kind,
            b"",
            "tombstone",
            datetime.now(UTC),
        )
        if claimed:
            return answer(happened=False)
        row = await tx.row(self._sql["find_handled"], tenant, question.key)
        assert row is not None
        return _answer(row, answer)


def _answer(row: Row, answer: type[FateModel[Any]]) -> FateModel[Any]:
    if row["outcome"] != "success":
        return answer(happened=False)
    receipt = parse(bytes(row["reply"])).data
    return answer.model_validate_json(orjson.dumps({"happened": True, "receipt": receipt}))
