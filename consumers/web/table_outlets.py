"""Routes of outlets: where notices are delivered to outside."""

from __future__ import annotations

from typing import Final

from consumers.web import asked, asked_outlets, outlets, told_outlets
from consumers.web.routes import Route

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET", path="/v1/outlets", handler=outlets.list_outlets, tag="outlets", permission="outlets.read",
        summary="Where notices are delivered to outside; never the secrets", query=asked.Query,
        answer=told_outlets.Outlets,
    ),
    Route(
        method="POST", path="/v1/outlets", handler=outlets.add_outlet, tag="outlets", permission="outlets.manage",
        summary="Make an outlet; its secret is told this once",
        body=asked_outlets.AddOutlet, query=asked.Query, answer=told_outlets.OutletSecret, status=201,
    ),
    Route(
        method="POST", path="/v1/outlets/{outlet}/rotate", handler=outlets.rotate_outlet, tag="outlets",
        permission="outlets.manage", summary="Give an outlet a new secret; the one before signs, too, for a while",
        body=asked_outlets.RotateOutlet, query=asked.Query, answer=told_outlets.OutletSecret,
    ),
    Route(
        method="POST", path="/v1/outlets/{outlet}/switch", handler=outlets.switch_outlet, tag="outlets",
        permission="outlets.manage", summary="Enable or disable an outlet",
        body=asked_outlets.SwitchOutlet, query=asked.Query, answer=told_outlets.Outlet,
    ),
    Route(
        method="POST", path="/v1/outlets/{outlet}/test", handler=outlets.test_outlet, tag="outlets",
        permission="outlets.manage", summary="Have a test delivered", query=asked.Query,
        answer=told_outlets.OutletTest, status=202,
    ),
    Route(
        method="GET", path="/v1/outlets/{outlet}/deliveries", handler=outlets.list_deliveries, tag="outlets",
        permission="outlets.read", summary="What was delivered, waits, or failed for good, newest first",
        query=asked_outlets.DeliveriesQuery, answer=told_outlets.Deliveries,
    ),
    Route(
        method="POST", path="/v1/outlets/{outlet}/redeliver", handler=outlets.redeliver_notices, tag="outlets",
        permission="outlets.redeliver", summary="Send one notice again, or all since a time that were not taken",
        body=asked_outlets.Redeliver, query=asked.Query, answer=told_outlets.Redelivered, status=202,
    ),
    Route(
        method="DELETE", path="/v1/outlets/{outlet}", handler=outlets.remove_outlet, tag="outlets",
        permission="outlets.manage", summary="Remove an outlet with its deliveries", query=asked.Query,
        answer=told_outlets.OutletRemoved,
    ),
)  # fmt: skip
