"""Every route of the API, once, in a table for each area. The app is built from it, the OpenAPI document is written
from it, and the tests for roles and for tenant isolation walk it.
"""

from __future__ import annotations

from typing import Final

from consumers.web import table_outlets, table_people, table_platform, table_runs
from consumers.web.routes import Route

ROUTES: Final[tuple[Route, ...]] = (
    *table_runs.ROUTES,
    *table_platform.ROUTES,
    *table_outlets.ROUTES,
    *table_people.ROUTES,
)

ALIASES: Final = {"/tenants": "/v1/tenants"}
"""Addresses that mean another one."""
