"""Outlets and their deliveries, on any driver."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from engine.store import Outlet, OutletDelivery, OutletQueue, Store
from tests.conformance.store_making import NOW

LEASE = NOW + timedelta(minutes=1)


def outlet(name: str = "ops", tenant: str = "acme") -> Outlet:
    return Outlet(
        tenant=tenant,
        name=name,
        url=f"https://{name}.example/notices",
        types=("unwind.RunParkedV1", "unwind.RunEndedV1"),
        secret=b"sealed",
        created_at=NOW,
        created_by="ann",
    )


def delivery(number: int, name: str = "ops", tenant: str = "acme") -> OutletDelivery:
    at = NOW + timedelta(seconds=number)
    return OutletDelivery(
        tenant=tenant,
        outlet=name,
        message_id=f"m{number}",
        about="acme",
        type="unwind.RunParkedV1",
        body=b"sealed",
        created_at=at,
        due_at=at,
    )


class OutletConformance:
    async def test_an_outlet_is_kept_rotated_by_its_version_switched_and_removed(self, store: Store) -> None:
        assert await store.add_outlet(outlet())
        assert not await store.add_outlet(replace(outlet(), url="https://other.example/"))
        assert await store.add_outlet(outlet(tenant="globex"))
        assert await store.outlet("acme", "ops") == outlet()
        assert await store.outlets(None) == [outlet(), outlet(tenant="globex")]
        assert await store.outlets("globex") == [outlet(tenant="globex")]

        assert await store.rotate_outlet(outlet(), b"newer", old_until=LEASE, now=NOW)
        assert not await store.rotate_outlet(outlet(), b"later", old_until=LEASE, now=NOW)
        rotated = replace(outlet(), version=2, secret=b"newer", old_secret=b"sealed", old_until=LEASE, rotated_at=NOW)
        assert await store.outlet("acme", "ops") == rotated

        assert await store.note_outlet("acme", "ops", failed=False, now=NOW) is None
        assert await store.note_outlet("acme", "ops", failed=True, now=NOW) == NOW
        assert await store.note_outlet("acme", "ops", failed=True, now=LEASE) == NOW
        for changed in (True, False):
            assert await store.switch_outlet("acme", "ops", enabled=False, why="gone", now=LEASE) is changed
        assert await store.outlet("acme", "ops") == replace(
            rotated, enabled=False, switched_at=LEASE, switched_why="gone"
        )
        for changed in (True, False):
            assert await store.remove_outlet("acme", "ops") is changed
        assert await store.outlets(None) == [outlet(tenant="globex")]

    async def test_a_notice_is_delivered_once_to_each_outlet_and_claimed_by_one(self, store: Store) -> None:
        await store.add_outlet(outlet())
        await store.add_outlet(outlet("desk"))
        for name in ("ops", "desk"):
            assert await store.add_delivery(delivery(1, name))
        assert not await store.add_delivery(replace(delivery(1), type="again"))
        assert not await store.add_delivery(delivery(1, "nobody"))

        async def claimed(at: timedelta, *busy: str, each: int = 5, limit: int = 50) -> list[tuple[str, str]]:
            now = NOW + at
            found = await store.claim_deliveries(
                now=now, lease_until=now + timedelta(minutes=1), busy=busy, each=each, limit=limit
            )
            return sorted((one.outlet, one.message_id) for one in found)

        assert await claimed(timedelta()) == []
        assert await claimed(timedelta(seconds=1), "acme/ops") == [("desk", "m1")]
        assert await claimed(timedelta(seconds=1)) == [("ops", "m1")]
        assert await claimed(timedelta(seconds=50)) == []
        # Whoever claimed them has died.
        assert await claimed(timedelta(seconds=62)) == [("desk", "m1"), ("ops", "m1")]
        for number in (2, 3, 4):
            await store.add_delivery(delivery(number))
        await store.switch_outlet("acme", "desk", enabled=False, why="", now=NOW)
        assert await claimed(timedelta(seconds=70), each=2) == [("ops", "m2"), ("ops", "m3")]
        assert await claimed(timedelta(hours=1), limit=1) == [("ops", "m4")]

    async def test_what_became_of_a_delivery_is_kept_until_it_is_pruned(self, store: Store) -> None:
        await store.add_outlet(outlet())
        for number in (1, 2):
            await store.add_delivery(delivery(number))
        again = replace(delivery(1), attempts=1, due_at=LEASE, status=500, error="http_500")
        assert await store.settle_delivery(again)
        done = replace(delivery(2), state="delivered", attempts=2, status=204, settled_at=LEASE)
        assert await store.settle_delivery(done)
        assert not await store.settle_delivery(replace(done, state="failed"))
        assert await store.deliveries("acme", "ops") == [done, again]
        assert await store.deliveries("acme", "ops", state="waiting") == [again]
        assert await store.deliveries("acme", "ops", limit=1) == [done]
        assert await store.deliveries("globex", "ops") == []
        assert await store.prune_deliveries(before=LEASE, limit=10) == 0
        assert await store.prune_deliveries(before=LEASE + timedelta(seconds=1), limit=10) == 1
        assert await store.deliveries("acme", "ops") == [again]

    async def test_what_was_settled_long_ago_is_forgotten_in_slices_the_oldest_first(self, store: Store) -> None:
        await store.add_outlet(outlet())
        for number in (1, 2, 3):
            await store.add_delivery(delivery(number))
            settled_at = LEASE - timedelta(minutes=number)
            assert await store.settle_delivery(
                replace(delivery(number), state="delivered", attempts=1, status=204, settled_at=settled_at)
            )
        kept = await store.deliveries("acme", "ops")
        pruned = [await store.prune_deliveries(before=LEASE, limit=2)]
        assert await store.deliveries("acme", "ops") == [
            one for one in kept if one.message_id == delivery(1).message_id
        ]
        pruned += [
            await store.prune_deliveries(before=LEASE, limit=2),
            await store.prune_deliveries(before=LEASE, limit=2),
        ]
        assert pruned == [2, 1, 0]

    async def test_what_failed_is_due_again_with_all_of_its_attempts_and_what_comes_by_itself_is_left_alone(
        self, store: Store
    ) -> None:
        await store.add_outlet(outlet())
        at, soon = NOW + timedelta(hours=1), NOW + timedelta(hours=1, minutes=2)
        for number in range(1, 7):
            await store.add_delivery(delivery(number))
        failed = [
            replace(delivery(number), state="failed", attempts=11, status=500, error="http_500", settled_at=NOW)
            for number in (1, 2, 3)
        ]
        late = replace(delivery(4), attempts=6, due_at=soon + timedelta(seconds=1), status=503, error="http_503")
        in_hand = replace(delivery(5), attempts=1, due_at=soon)
        done = replace(delivery(6), state="delivered", attempts=1, status=204, settled_at=NOW)
        for settled in (*failed, late, in_hand, done):
            assert await store.settle_delivery(settled)

        async def resend(number: int, **when: int) -> int:
            since = delivery(number).created_at
            return await store.resend_failed("acme", "ops", since=since, now=at, soon=soon, limit=when.get("limit", 9))

        assert await resend(4) == 1
        assert await resend(2, limit=1) == 1  # the oldest
        again = replace(failed[1], state="waiting", attempts=0, due_at=at, settled_at=None)
        assert await store.delivery("acme", "ops", "m2") == again
        assert await store.delivery("acme", "ops", "m4") == replace(late, attempts=0, due_at=at)
        assert await resend(2) == 1
        assert await store.deliveries("acme", "ops", state="failed") == [failed[0]]
        assert [await store.delivery("acme", "ops", name) for name in ("m5", "m6")] == [in_hand, done]

        async def one(message_id: str, tenant: str = "acme") -> bool:
            return await store.resend_delivery(tenant, "ops", message_id, now=at, soon=soon)

        assert [await one(name) for name in ("m1", "m6", "m5", "m2", "m9")] == [True, True, False, False, False]
        assert not await one("m1", "globex")
        assert await store.delivery("acme", "ops", "m6") == replace(
            done, state="waiting", attempts=0, due_at=at, settled_at=None
        )
        assert await store.delivery("acme", "ops", "m9") is None

    async def test_outlets_with_something_waiting_and_those_disabled_are_told_with_the_oldest_of_it(
        self, store: Store
    ) -> None:
        for name in ("ops", "desk", "done", "idle"):
            await store.add_outlet(outlet(name))
        assert await store.outlet_queues() == []
        for number in (3, 2, 5):
            await store.add_delivery(delivery(number))
        await store.settle_delivery(replace(delivery(5), state="failed", attempts=11, settled_at=LEASE))
        await store.add_delivery(delivery(1, "desk"))
        await store.add_delivery(delivery(1, "done"))
        await store.settle_delivery(replace(delivery(1, "done"), state="delivered", attempts=1, settled_at=LEASE))
        await store.note_outlet("acme", "ops", failed=True, now=NOW)
        for name in ("desk", "idle"):
            await store.switch_outlet("acme", name, enabled=False, why="gone", now=NOW)

        def queue(name: str, waiting: int, oldest: int | None) -> OutletQueue:
            return OutletQueue(
                tenant="acme",
                outlet=name,
                enabled=name == "ops",
                switched_why="" if name == "ops" else "gone",
                failing_since=NOW if name == "ops" else None,
                waiting=waiting,
                oldest=None if oldest is None else delivery(oldest).created_at,
            )

        assert await store.outlet_queues() == [queue("desk", 1, 1), queue("idle", 0, None), queue("ops", 2, 2)]
        assert await store.outlet_queues(most=2) == [queue("desk", 1, 1), queue("idle", 0, None), queue("ops", 1, 2)]

    async def test_a_tenant_that_is_forgotten_goes_with_its_outlets_and_with_what_others_are_to_be_told_of_it(
        self, store: Store
    ) -> None:
        await store.add_outlet(outlet())
        await store.add_outlet(outlet("board", tenant="platform"))
        await store.add_delivery(delivery(1))
        await store.add_delivery(delivery(1, "board", tenant="platform"))
        await store.add_delivery(replace(delivery(2, "board", tenant="platform"), about="globex"))
        await store.forget_tenant("acme")
        assert [one.name for one in await store.outlets(None)] == ["board"]
        assert [one.about for one in await store.deliveries("platform", "board")] == ["globex"]
