"""What every store driver must do about the journal and the catalog: outcomes and pruning, dead letters, tenants and
lanes, keys, tokens, hooks, settings."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest

from contracts.problems import Conflict
from engine.store import Closed, Commit, DeadLetter, Hook, NewInput, PresentedToken, Store, Token, WrappedKey
from engine.store.errors import ContentRefused
from engine.store.people import Membership, User
from tests.conformance.store_making import NOW, Opening, append, arrived, events, later, open_a_run

KEY = WrappedKey(tenant="acme", scope="tenant", key_id=1, wrapped=b"wrapped by a", root_id="a")
TOKEN = Token(prefix="uw_abc", digest=b"digest", tenant="acme", name="ci", roles=("viewer", "operator"), created_at=NOW)
MAKER = User(id=uuid.UUID(int=7), email="ann@example.org", name="Ann", created_at=NOW)

HOOK = Hook(
    tenant="acme",
    name="orders",
    workflow="fulfilment",
    scheme="stripe",
    fields={"email": "/data/email", "note": {"constant": "a\x00b"}},
    secret=b"one",
    created_at=NOW,
    created_by="ann",
    id_pointer="/id",
)


def letter(**more: Any) -> DeadLetter:
    made = DeadLetter(
        id=uuid.uuid4(),
        tenant="acme",
        reason="payload_invalid",
        detail="data.amount must be a number",
        source="/modules/billing",
        routing_key="billing.PaidV1",
        event_id="e1",
        type="billing.PaidV1",
        attempts=[{"at": "2030-03-01T12:00:00Z", "error": "payload_invalid"}],
        envelope=b"\x00sealed\xff",
        headers={"x-delivery-count": 3},
        state="dead",
        created_at=NOW,
    )
    return replace(made, **more)


class JournalConformance:
    async def test_outcomes_of_an_arrival_are_kept_in_order_and_once(self, store: Store, epoch: int) -> None:
        await append(store, epoch, arrived("e1"))
        for outcome in ("started", "ignored: late", "started"):
            await store.record_outcome("acme", "/modules/billing", "e1", outcome)
        assert await store.outcomes("acme", "/modules/billing", "e1") == ["started", "ignored: late"]
        assert await store.outcomes("other", "/modules/billing", "e1") == []

    async def test_an_arrival_tells_what_became_of_it_and_what_is_still_to_come(self, store: Store, epoch: int) -> None:
        run = uuid.uuid4()
        start = NewInput(kind="start", workflow="w", arrival=("/modules/billing", "e1"))
        note = NewInput(kind="note", run_id=run, name="approval", arrival=("/modules/billing", "e1"))
        await append(store, epoch, arrived("e1", causation_id="c-1", inputs=(start, note)))
        await store.record_outcome("acme", "/modules/billing", "e1", "ignored: late")
        found = await store.journaled("acme", "/modules/billing", "e1")
        assert found is not None
        assert (found.type, found.causation_id, found.body) == ("billing.PaidV1", "c-1", b"envelope of e1")
        assert found.outcomes == ("ignored: late",)
        assert [(one.kind, one.run_id, one.workflow, one.name) for one in found.pending] == [
            ("start", None, "w", None),
            ("note", run, None, "approval"),
        ]
        assert await store.journaled("other", "/modules/billing", "e1") is None
        assert await store.journaled("acme", "/modules/crm", "e1") is None

    async def test_dead_letters_are_found_by_the_id_they_named(self, store: Store) -> None:
        for number, more in enumerate(({"event_id": "e1"}, {"event_id": "e2"}, {"event_id": "e1", "tenant": "other"})):
            await store.bury(letter(id=uuid.UUID(int=number + 1), **more))
        assert [one.id.int for one in await store.dead_letters_of("acme", "e1")] == [1]
        assert await store.dead_letters_of("acme", "e3") == []

    async def test_past_arrivals_come_in_the_order_of_the_journal_page_by_page(self, store: Store, epoch: int) -> None:
        for number in range(5):
            await append(store, epoch, arrived(f"e{number}", received_at=later(minutes=number)))
        await append(store, epoch, arrived("e1", tenant="other", received_at=later(minutes=1)))
        [kind] = {
            one.type for one in await store.past_arrivals("acme", ["billing.PaidV1"], since=NOW, until=later(days=1))
        }
        span: dict[str, Any] = {"since": later(minutes=1), "until": later(minutes=4)}
        assert await store.count_past_arrivals("acme", [kind, "other.OneV1"], **span) == 3
        first = await store.past_arrivals("acme", ["other.OneV1", kind], **span, limit=2)
        rest = await store.past_arrivals("acme", [kind], **span, after=first[-1].id, limit=2)
        assert [one.event_id for one in first + rest] == ["e1", "e2", "e3"]
        assert await store.past_arrivals("acme", ["billing.Paid"], **span) == []
        for most in (1, 2, 6):
            assert await store.past_arrivals("acme", [kind], **span, most=most) == first + rest
            assert await store.past_arrivals("acme", [kind], **span, limit=2, most=most) == first
            assert await store.past_arrivals("acme", [kind], **span, after=first[-1].id, most=most) == rest
            assert await store.past_arrivals("other", ["none.OfThisV1"], **span, most=most) == []
            assert await store.count_past_arrivals("acme", [kind], **span, most=most) == 3
            assert await store.count_past_arrivals("other", [kind], **span, most=most) == 1
        # Where the span begins is found, and what came long after it ends the search.
        await append(store, epoch, arrived("e9", received_at=later(days=3)))
        late: dict[str, Any] = {"since": later(days=2), "until": later(days=4)}
        assert [one.event_id for one in await store.past_arrivals("acme", [kind], **late, most=1)] == ["e9"]
        assert await store.count_past_arrivals("acme", [kind], **late, most=1) == 1
        assert await store.past_arrivals("acme", [kind], **span, most=1) == first + rest
        assert await store.count_past_arrivals("globex", [kind], **span) == 0

    async def test_pruning_forgets_old_arrivals_but_none_that_is_still_needed(self, store: Store, epoch: int) -> None:
        needed = NewInput(kind="start", workflow="w", arrival=("/modules/billing", "e2"))
        old: dict[str, Any] = {"received_at": later(days=-40), "keys": (("order", b"k"),)}
        await append(store, epoch, arrived("e1", **old), arrived("e2", inputs=(needed,), **old), arrived("e3"))
        await store.record_outcome("acme", "/modules/billing", "e1", "started")
        assert await store.prune_journal(before=later(days=-35)) == 1
        assert await store.prune_journal(before=later(days=-35)) == 0
        kept = [await store.arrival("acme", "/modules/billing", f"e{n}") is not None for n in (1, 2, 3)]
        assert kept == [False, True, True]
        assert await store.outcomes("acme", "/modules/billing", "e1") == []
        [row] = await store.claim_inputs(epoch, limit=5, now=later(minutes=1))
        assert row.body == b"envelope of e2"


class DeadLetterConformance:
    async def test_a_dead_letter_is_kept_whole_and_once(self, store: Store) -> None:
        kept = letter()
        assert await store.bury(kept)
        assert not await store.bury(replace(kept, detail="another"))
        assert await store.dead_letter("acme", kept.id) == kept
        assert await store.dead_letter(None, kept.id) == kept
        assert await store.dead_letter("other", kept.id) is None

    async def test_a_second_redrive_is_refused(self, store: Store, opening: Opening) -> None:
        kept = letter()
        await store.bury(kept)
        stores = [store, await opening()]
        settled = await asyncio.gather(
            *(s.settle_dead_letter(kept.id, state="redriven", by="ann", now=later(minutes=1)) for s in stores)
        )
        assert sorted(settled) == [False, True]
        assert not await store.settle_dead_letter(kept.id, state="discarded", by="bob")
        after = await store.dead_letter("acme", kept.id)
        assert after == replace(kept, state="redriven", settled_by="ann", settled_at=later(minutes=1))

    async def test_dead_letters_are_listed_by_tenant_state_and_page(self, store: Store) -> None:
        mine = sorted([letter(), letter(), letter()], key=lambda kept: kept.id)
        for kept in (*mine, letter(tenant="other")):
            await store.bury(kept)
        assert [kept.id for kept in await store.dead_letters(tenant="acme", limit=2)] == [m.id for m in mine[:2]]
        assert [kept.id for kept in await store.dead_letters(tenant="acme", after=mine[1].id)] == [mine[2].id]
        assert len(await store.dead_letters(tenant=None)) == 4
        await store.settle_dead_letter(mine[0].id, state="discarded", by="ann")
        assert len(await store.dead_letters(tenant="acme")) == 2
        assert len(await store.dead_letters(tenant="acme", state=None)) == 3
        assert [kept.id for kept in await store.dead_letters(tenant="acme", state="discarded")] == [mine[0].id]


class CatalogConformance:
    async def test_a_tenant_is_forgotten_whole_once_none_of_its_runs_is_open(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        theirs = [arrived(f"e{number}") for number in (1, 2, 3)]
        await append(store, epoch, *theirs, arrived("e1", tenant="other"))
        await store.add_key(KEY)
        await store.put_setting("acme", "cap", 3)
        await store.add_hook(HOOK)
        with pytest.raises(Conflict, match="acme"):
            await store.forget_tenant("acme")
        assert await store.arrival("acme", "/modules/billing", "e1") is not None
        assert await store.setting("acme", "cap") == 3
        end = Commit(tenant="acme", stream=run, expected=1, events=events("run.ended"), open_run=Closed())
        await append(store, epoch, end)
        gone = await store.forget_tenant("acme", most=2)
        assert gone == {"arrivals": 3, "letters": 0, "tokens": 0, "keys": 1}
        assert await store.arrival("acme", "/modules/billing", "e1") is None
        assert await store.setting("acme", "cap") is None
        assert await store.keys("acme") == []
        assert await store.hooks("acme") == []
        assert await store.arrival("other", "/modules/billing", "e1") is not None
        assert len(await store.load("acme", run)) == 2

    async def test_a_tenant_has_a_lane_from_first_sight(self, store: Store, opening: Opening) -> None:
        stores = [store, await opening(), await opening()]
        assert await asyncio.gather(*(s.lane_of("acme") for s in stores)) == [0, 0, 0]
        assert await store.lanes() == [0]

    async def test_the_first_writer_of_a_key_wins_and_the_others_learn_it(self, store: Store, opening: Opening) -> None:
        stores = [store, await opening(), await opening()]
        added = await asyncio.gather(*(s.add_key(replace(KEY, wrapped=bytes([n]))) for n, s in enumerate(stores)))
        assert len({key.wrapped for key in added}) == 1
        assert await store.keys("acme") == [added[0]]

    async def test_keys_are_listed_by_scope_rewrapped_and_dropped(self, store: Store) -> None:
        index = replace(KEY, scope="index")
        subject = replace(KEY, scope="subject/1", root_id="b")
        for key in (KEY, index, subject, replace(KEY, tenant="other")):
            await store.add_key(key)
        assert await store.keys("acme") == [index, subject, KEY]
        assert await store.keys("acme", scopes=["tenant", "subject/9"]) == [KEY]
        assert await store.keys("acme", scopes=[]) == []
        assert await store.root_ids() == {"a": 3, "b": 1}
        under_a = [KEY, index, replace(KEY, tenant="other")]
        assert sorted(await store.keys_not_under("b", limit=9), key=repr) == sorted(under_a, key=repr)
        assert len(await store.keys_not_under("b", limit=2)) == 2
        assert await store.keys_not_under("a", limit=2) == [subject]
        assert len(await store.keys_not_under("aa", limit=9)) == 4
        assert len(await store.keys_not_under("aa", limit=3)) == 3
        await store.rewrap_key(replace(KEY, wrapped=b"wrapped by b", root_id="b"))
        assert await store.root_ids() == {"a": 2, "b": 2}
        assert await store.keys("acme", scopes=["tenant"]) == [replace(KEY, wrapped=b"wrapped by b", root_id="b")]
        assert await store.drop_key("acme", "subject/1") == 1
        assert await store.drop_key("acme", "subject/1") == 0

    async def test_the_last_use_of_a_token_is_noted_at_most_once_in_a_while(self, store: Store) -> None:
        await store.add_token(TOKEN)
        assert await store.touch_token("uw_abc", now=later(minutes=5), before=later(minutes=4))
        assert not await store.touch_token("uw_abc", now=later(minutes=5.5), before=later(minutes=4.5))
        assert not await store.touch_token("uw_none", now=later(minutes=5), before=later(minutes=4))
        kept = await store.token("uw_abc")
        assert kept == replace(TOKEN, last_used_at=later(minutes=5))
        assert await store.touch_token("uw_abc", now=later(minutes=6), before=later(minutes=5))

    async def test_a_token_is_kept_by_its_digest_and_revoked_once(self, store: Store) -> None:
        operator = Token(
            prefix="uw_op",
            digest=b"d",
            tenant=None,
            name="root",
            roles=("admin",),
            created_at=later(minutes=1),
            expires_at=later(days=1),
            last_used_at=later(hours=1),
        )
        await store.add_token(TOKEN)
        await store.add_token(operator)
        with pytest.raises(ContentRefused):
            await store.add_token(TOKEN)
        assert await store.token("uw_abc") == TOKEN
        assert await store.token("uw_none") is None
        assert await store.tokens("acme") == [TOKEN]
        assert await store.tokens(None) == [TOKEN, operator]
        assert await store.revoke_token("uw_abc", now=later(hours=2))
        assert not await store.revoke_token("uw_abc")
        assert not await store.revoke_token("uw_none")
        revoked = await store.token("uw_abc")
        assert revoked == replace(TOKEN, revoked_at=later(hours=2))

    async def test_a_token_is_presented_with_how_its_tenant_stands_and_what_its_maker_holds(self, store: Store) -> None:
        def place(tenant: str | None, *roles: str, disabled: bool = False) -> Membership:
            return Membership(
                user_id=MAKER.id, tenant=tenant, roles=roles, created_at=NOW, disabled_at=NOW if disabled else None
            )

        made = replace(TOKEN, prefix="uw_made", made_by=MAKER.actor, made_with="uw_abc", maker=MAKER.id)
        platform = replace(made, prefix="uw_plat", tenant=None)
        for token in (TOKEN, made, platform):
            await store.add_token(token)
        await store.note_standing("acme", "Suspended", 1)
        assert await store.presented("uw_none") is None
        assert await store.presented("uw_abc") == PresentedToken(TOKEN, "Suspended")
        assert await store.presented("uw_made") == PresentedToken(made, "Suspended", ())

        async def held() -> list[set[str]]:
            found = [await store.presented(prefix) for prefix in ("uw_made", "uw_plat")]
            return [set(one.maker_roles or ()) for one in found if one is not None]

        await store.add_user(MAKER)
        await store.put_membership(place("acme", "viewer", "admin"))
        await store.put_membership(place("other", "approver"))
        assert await held() == [{"viewer", "admin"}, set()]
        await store.put_membership(place(None, "operator", "viewer"))
        assert await held() == [{"viewer", "admin", "operator"}, {"viewer", "operator"}]
        await store.put_membership(place("acme", "viewer", "admin", disabled=True))
        assert await held() == [{"viewer", "operator"}] * 2
        await store.disable_user(MAKER.id, now=NOW)
        assert await held() == [set(), set()]

    async def test_a_hook_keeps_its_last_two_secrets_and_is_found_by_tenant_and_name(self, store: Store) -> None:
        assert await store.add_hook(HOOK)
        assert not await store.add_hook(replace(HOOK, secret=b"another"))
        other = replace(HOOK, tenant="other", fields={}, id_pointer=None)
        assert await store.add_hook(other)
        assert await store.hook("acme", "orders") == HOOK
        assert await store.hook("acme", "nothing") is None
        assert await store.hooks("acme") == [HOOK]
        assert await store.hooks(None) == [HOOK, other]
        rotated = replace(
            HOOK, version=2, secret=b"two", old_secret=b"one", old_until=later(hours=1), rotated_at=later(minutes=1)
        )
        assert await store.rotate_hook(HOOK, b"two", old_until=later(hours=1), now=later(minutes=1))
        assert not await store.rotate_hook(HOOK, b"lost", old_until=later(hours=1), now=later(minutes=1))
        assert await store.hooks("acme") == [rotated]
        assert await store.remove_hook("acme", "orders")
        assert not await store.remove_hook("acme", "orders")
        assert await store.hooks(None) == [other]

    async def test_a_setting_of_a_tenant_goes_before_the_default_of_all(self, store: Store) -> None:
        assert await store.setting("acme", "cap") is None
        await store.put_setting("*", "cap", {"runs": 10})
        assert await store.setting("acme", "cap") == {"runs": 10}
        await store.put_setting("acme", "cap", 5)
        await store.put_setting("acme", "cap", 0)
        assert await store.setting("acme", "cap") == 0
        assert await store.setting("other", "cap") == {"runs": 10}
        assert await store.settings_named("cap") == {"*": {"runs": 10}, "acme": 0}
        assert await store.settings_named("nothing") == {}
        await store.put_setting("acme", "holds", [])
        await store.put_setting("acme", "off", False)
        assert (await store.setting("acme", "holds"), await store.setting("acme", "off")) == ([], False)

    async def test_a_living_database_answers_a_ping(self, store: Store) -> None:
        await store.ping()

    async def test_stopping_twice_is_fine(self, store: Store) -> None:
        await store.stop()
        await store.stop()
