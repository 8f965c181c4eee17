"""What a module's developer imports: publishing that is durable before it is sent, and commands obeyed once per key.

from contracts.sdk import Call, Refused, Retryable, Service, Tx, open_database, open_transport
"""

from __future__ import annotations

from contracts.sdk.call import Call, Early, HandlerBroken, PutOff, Refused, Retryable, Unanswered
from contracts.sdk.database import Database, DatabaseUnavailable, Tx, open_database
from contracts.sdk.module import Service
from contracts.sdk.postgres import PostgresDatabase
from contracts.sdk.queries import Asker, QueryRefused, QueryTimedOut, Question
from contracts.sdk.sqlite import SqliteDatabase
from contracts.sdk.tracing import Tracing
from contracts.sdk.transport import Transport, open_transport

__all__ = [
    "Asker",
    "Call",
    "Database",
    "DatabaseUnavailable",
    "Early",
    "HandlerBroken",
    "PostgresDatabase",
    "PutOff",
    "QueryRefused",
    "QueryTimedOut",
    "Question",
    "Refused",
    "Retryable",
    "Service",
    "SqliteDatabase",
    "Tracing",
    "Transport",
    "Tx",
    "Unanswered",
    "open_database",
    "open_transport",
]
