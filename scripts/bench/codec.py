"""What an event costs: microseconds to make, encode, seal, open, show and decode one of about 300 bytes, marked and
not; and what a megabyte of personal data costs to redact. Prints one JSON line per figure; best of several rounds, so
that a busy machine does not blur it. No server needed.
"""

from __future__ import annotations

import dataclasses
import secrets
import timeit
from datetime import UTC, datetime
from uuid import uuid4

import orjson

from contracts import codec
from contracts.run_events import StepSucceeded
from engine.guards.redaction import redact
from engine.store import Stored
from engine.store.keys import SubjectKeys, TenantKeys
from engine.store.mapper import Mapper, redacted

ROUNDS = 7
NUMBER = 5_000
MEGABYTE = 1_000_000
PERSON = {
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "note": "rang +49 170 1234567 about order 2030-000123456",
    "paid": "4111 1111 1111 1111",
    "id": "0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b",
    "said": '{"password": "hunter2"}',
}


def main() -> None:
    event = StepSucceeded(
        at=datetime.now(UTC),
        step="create-billing-account",
        visit=1,
        attempt=1,
        output={
            "account_id": "acc_01hx2z7",
            "plan": "business",
            "email": "ada@example.org",
            "seats": 25,
            "note": "n" * 40,
        },
    )
    marked = StepSucceeded(
        at=event.at, marks=("/output/email",), step=event.step, visit=1, attempt=1, output=dict(event.output)
    )
    keys = TenantKeys("tenant-1", {1: secrets.token_bytes(32)}, {1: secrets.token_bytes(32)})
    scope = keys.subject_scope("customer-1")
    subject = SubjectKeys("tenant-1", scope, {7: secrets.token_bytes(32)}, 0.0)
    keys.remember(scope, subject)
    mapper = Mapper()
    stream = uuid4()
    plain = codec.encode(event)
    recorded = mapper.encode(keys, stream, 3, event)
    stored = Stored(3, recorded.topic, recorded.body, event.at)
    personal = mapper.encode(keys, stream, 3, marked, subject)
    stored_personal = Stored(3, personal.topic, personal.body, event.at)

    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    frozen = dataclasses.make_dataclass("Frozen", list(fields), frozen=True, slots=True, kw_only=True)
    figures = {
        "make a value": lambda: StepSucceeded(**fields),
        "make the same frozen": lambda: frozen(**fields),
        "codec encode": lambda: codec.encode(event),
        "codec decode": lambda: codec.decode_body(event.TOPIC, plain),
        "seal": lambda: keys.seal(b"place", plain),
        "index hash": lambda: keys.index_hash("customer_id", "customer-1"),
        "mapper encode": lambda: mapper.encode(keys, stream, 3, event),
        "mapper decode": lambda: mapper.decode(keys, stream, stored),
        "mapper show": lambda: mapper.show(keys, stream, stored),
        "mapper encode, marked": lambda: mapper.encode(keys, stream, 3, marked, subject),
        "mapper decode, marked": lambda: mapper.decode(keys, stream, stored_personal),
        "redacted": lambda: redacted(event),
        "redacted, marked": lambda: redacted(marked),
    }
    for name, call in figures.items():
        best = min(timeit.repeat(call, repeat=ROUNDS, number=NUMBER)) / NUMBER * 1e6
        print(orjson.dumps({"figure": name, "us": round(best, 2), "body_bytes": len(plain)}).decode())
    for size in (MEGABYTE // 4, MEGABYTE):
        print(
            orjson.dumps({"figure": "redact", "us": round(redaction_seconds(size) * 1e6), "body_bytes": size}).decode()
        )


def redaction_seconds(size: int) -> float:
    """What it takes to redact so many bytes of JSON, at its best."""
    document = [PERSON] * (size // len(orjson.dumps(PERSON)) + 1)
    return min(timeit.repeat(lambda: redact(document), repeat=ROUNDS, number=1))


if __name__ == "__main__":
    main()
