"""People over the real stores, by a clock that is turned: sessions, sign-in, invitations; on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.problems import Conflict, Forbidden, NotFound, PayloadInvalid, RateLimited, Unauthenticated
from engine.clock import VirtualClock
from engine.guards.passwords import Passwords
from engine.guards.permissions import Principal, RoleUnknown, digest_of, permissions_of
from engine.guards.sessions import Sessions, Terms, token_of
from engine.guards.standing import TenantClosed, TenantSuspended, require_served
from engine.metrics import Metrics
from engine.people import InvitationOver, People, address_of
from engine.sign_in import ADDRESS_TRIES, EMAIL_TRIES, SignInRefused, SignIns
from engine.store import Store
from engine.store.key_ring import create_key_ring
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from engine.store.people import Membership, Person
from engine.tenant_log import TenantLog
from tests.conformance.store_making import running

PASSWORD = "violet harbour lamp"
ROOT = Principal("root", None, ("admin",), permissions_of(("admin",), None))
ADMIN = Principal("admin of acme", "acme", ("admin",), permissions_of(("admin",), "acme"))
FROM: dict[str, Any] = {"address": "192.0.2.7", "agent": "Firefox"}


class House:
    """Everything over one store, at one time."""

    def __init__(self, store: Store, vault: Vault, epoch: int) -> None:
        self.store, self.clock = store, VirtualClock()
        log = TenantLog(store, vault, Mapper(), self.clock, epoch=lambda: epoch)
        self.people = People(store, log, self.clock, Passwords())
        self.sessions = Sessions(store, self.clock, Terms(timedelta(hours=1), timedelta(hours=12)))
        self.sign_ins = SignIns(self.people, self.sessions, vault, log, self.clock, Metrics())
        self.refused = 0
        self.sign_ins.on_refused = self._count

    def _count(self) -> None:
        self.refused += 1

    async def user(self, name: str, *places: tuple[str | None, str]) -> Person:
        user = await self.people.newcomer(f"{name}@example.org", name.capitalize(), PASSWORD)
        assert await self.store.add_user(user)
        for tenant, role in places:
            await self.store.put_membership(
                Membership(user_id=user.id, tenant=tenant, roles=(role,), created_at=user.created_at)
            )
        return await self.people.person(user.id, None)

    async def begin(self, person: Person, tenant: str | None = None) -> str:
        text, _ = await self.sign_ins.known(person, how="password", tenant=tenant, **FROM)
        return text

    async def attempt(self, name: str, password: str = PASSWORD, **more: Any) -> str | None:
        """What the browser is known by afterwards."""
        given = {"tenant": None, "browser": None, **FROM} | more
        return (await self.sign_ins.by_password(f"{name}@example.org", password, **given)).browser

    async def is_out(self, text: str) -> bool:
        try:
            await self.sessions.admit(text)
        except Unauthenticated:
            return True
        return False


class PeopleInStore:
    """The cases; a subclass names the store by its fixture."""

    @pytest.fixture
    async def house(self, store: Store, tmp_path: Path) -> AsyncIterator[House]:
        vault = Vault(store, create_key_ring(tmp_path / "keys.json"))
        house = House(store, vault, await store.register("test", ("web",)))
        yield house
        house.people.passwords.stop()

    # ------------------------------------------------------------------------------------------------------- sessions

    async def test_a_session_ends_when_it_is_not_used_and_at_its_time_however_much_it_is(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "viewer"))
        idle, used = await house.begin(ann), await house.begin(ann)
        assert idle != used
        for _ in range(23):
            house.clock.forward(minutes=31)
            assert not await house.is_out(used)
        assert await house.is_out(idle)
        house.clock.forward(minutes=7)
        assert await house.is_out(used)
        for text in ("", "x" * 43, used + "x", "\ud800" * 43, used[:-1] + "*"):
            assert await house.is_out(text)

    async def test_the_store_knows_no_session_s_id_and_no_page_s_token(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "viewer"))
        text = await house.begin(ann)
        [kept] = await house.store.sessions(ann.user.id)
        assert kept.digest == digest_of(text)
        assert len(text) == 43
        assert text not in repr(kept)
        visit = await house.sessions.admit(text)
        assert visit.token == token_of(text)
        assert visit.token not in repr(kept)
        assert text not in repr(visit)
        assert visit.token != token_of(await house.begin(ann))

    async def test_a_user_has_where_he_acts_the_rights_of_that_membership_and_no_more(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "admin"), ("globex", "viewer"))
        text = await house.begin(ann, "acme")
        here, there = await house.sessions.admit(text), await house.sessions.admit(text, "globex")
        assert (here.principal.tenant, here.principal.permissions) == ("acme", permissions_of(("admin",), "acme"))
        assert (there.principal.tenant, there.principal.permissions) == ("globex", permissions_of(("viewer",), "x"))
        assert here.principal.name == there.principal.name == f"user:{ann.user.id}"
        for name in ("initech", "nobody"):
            with pytest.raises(NotFound):
                await house.sessions.admit(text, name)
        with pytest.raises(SignInRefused):
            await house.begin(ann, "initech")
        root = await house.user("root", (None, "operator"), ("acme", "viewer"))
        platform = await house.sessions.admit(await house.begin(root), "anywhere")
        assert (platform.principal.tenant, platform.principal.roles) == (None, ("operator",))

    async def test_who_loses_his_place_is_out_at_once_and_his_other_places_stand(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "viewer"), ("globex", "viewer"))
        acme, globex = await house.begin(ann, "acme"), await house.begin(ann, "globex")
        await house.people.set_roles(ann, "acme", ["operator"], by=ADMIN)
        assert (await house.sessions.admit(acme)).principal.roles == ("operator",)
        await house.people.set_roles(ann, "acme", [], by=ADMIN)
        assert [await house.is_out(text) for text in (acme, globex)] == [True, False]
        with pytest.raises(NotFound):
            await house.sessions.admit(globex, "acme")
        await house.people.disable(ann, None, by=ROOT)
        assert await house.is_out(globex)
        with pytest.raises(SignInRefused):
            await house.begin(await house.people.person(ann.user.id, None))
        await house.people.enable(await house.people.person(ann.user.id, None), None, by=ROOT)
        assert await house.is_out(globex)
        assert not await house.is_out(await house.begin(await house.people.person(ann.user.id, None)))

    async def test_members_of_a_suspended_tenant_are_refused_by_that_name_and_the_platform_is_not(
        self, house: House
    ) -> None:
        ann = await house.user("ann", ("acme", "admin"), ("globex", "admin"))
        root = await house.user("root", (None, "admin"))
        here, operator = await house.begin(ann, "acme"), await house.begin(root)
        await house.store.note_standing("acme", "Suspended", 3)
        with pytest.raises(TenantSuspended, match="works again when it is reinstated"):
            require_served((await house.sessions.admit(here)).state)
        require_served((await house.sessions.admit(here, "globex")).state)
        require_served((await house.sessions.admit(operator, "acme")).state)
        with pytest.raises(TenantSuspended):
            await house.begin(ann, "acme")
        assert (await house.sessions.admit(await house.begin(ann))).principal.tenant == "globex"
        for refused in (house.people.invite("x@example.org", "acme", ["viewer"], by=ROOT),):
            with pytest.raises(TenantSuspended):
                await refused
        await house.store.note_standing("acme", "Decommissioned", 4)
        with pytest.raises(TenantClosed):
            require_served((await house.sessions.admit(here)).state)
        await house.store.note_standing("acme", "Active", 5)
        require_served((await house.sessions.admit(here)).state)

    # -------------------------------------------------------------------------------------------------------- sign-in

    async def test_every_refused_sign_in_is_the_same_and_is_counted(self, house: House) -> None:
        await house.user("ann", ("acme", "viewer"))
        disabled = await house.user("dan", ("acme", "viewer"))
        await house.store.disable_user(disabled.user.id, now=house.clock.now())
        await house.user("homeless")
        away = await house.user("away", ("acme", "viewer"))
        await house.store.put_membership(replace(away.memberships[0], disabled_at=house.clock.now()))
        blank = await house.user("blank", ("acme", "viewer"))
        await house.store.set_password(blank.user.id, None, was=blank.user.password)
        said = set()
        tries: list[dict[str, Any]] = [
            {"name": "ann", "password": "wrong harbour lamp"},
            {"name": "ann", "tenant": "x"},
        ]
        tries += [{"name": name} for name in ("dan", "homeless", "away", "blank", "nobody", "ü", "\ud800")]
        for one in tries:
            with pytest.raises(SignInRefused) as refused:
                await house.attempt(**one)
            said.add(str(refused.value.to_document()))
        assert len(said) == 1
        assert house.refused == len(tries)

    async def test_a_guessed_address_is_slowed_and_comes_free_again(self, house: House) -> None:
        await house.user("ann", ("acme", "viewer"))
        await house.user("bob", ("acme", "viewer"))
        for number in range(EMAIL_TRIES):
            with pytest.raises(SignInRefused):
                await house.attempt("ann", "wrong", address=f"198.51.100.{number}")
        with pytest.raises(RateLimited) as limited:
            await house.attempt("ann", address="203.0.113.9")
        assert limited.value.context == {"retry_after_seconds": 900}
        await house.attempt("bob", address="203.0.113.9")
        house.clock.forward(minutes=14, seconds=30)
        with pytest.raises(RateLimited) as limited:
            await house.attempt("ann")
        assert limited.value.context == {"retry_after_seconds": 30}
        house.clock.forward(seconds=30)
        await house.attempt("ann")

    async def test_a_browser_that_signed_in_before_is_shut_out_by_no_stranger(self, house: House) -> None:
        await house.user("ann", ("acme", "viewer"))
        await house.user("bob", ("acme", "viewer"))
        browser = await house.attempt("ann")
        assert browser is not None
        for number in range(EMAIL_TRIES):
            with pytest.raises(SignInRefused):
                await house.attempt("ann", "wrong", address=f"198.51.100.{number}")
        for stranger in (None, "", "x.y", browser[:-1] + "z", browser.replace(".", ""), "\ud800." + browser):
            with pytest.raises(RateLimited):
                await house.attempt("ann", browser=stranger)
        await house.attempt("ann", browser=browser)
        # It is good for this user alone, and not for guessing without an end.
        for number in range(EMAIL_TRIES):
            with pytest.raises(SignInRefused):
                await house.attempt("bob", "wrong", browser=browser, address=f"198.51.100.{number}")
            with pytest.raises(SignInRefused):
                await house.attempt("ann", "wrong", browser=browser)
        for name in ("ann", "bob"):
            with pytest.raises(RateLimited):
                await house.attempt(name, browser=browser)

    async def test_a_network_address_that_guesses_is_slowed_and_its_good_sign_ins_cost_nothing(
        self, house: House
    ) -> None:
        await house.user("ann", ("acme", "viewer"))
        for _ in range(3):
            await house.attempt("ann")
        for number in range(ADDRESS_TRIES):
            with pytest.raises(SignInRefused):
                await house.attempt(f"guess{number}", "wrong")
        with pytest.raises(RateLimited):
            await house.attempt("ann")
        await house.attempt("ann", address="203.0.113.9")
        house.clock.forward(seconds=60)
        await house.attempt("ann")

    async def test_a_hash_of_old_parameters_is_made_anew_by_who_proves_it(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as weaker:
            weaker.setattr("engine.guards.passwords.MEMORY_KIB", 8_192)
            ann = await house.user("ann", ("acme", "viewer"))
        assert "m=8192" in str(ann.user.password)
        await house.attempt("ann")
        after = await house.people.person(ann.user.id, None)
        assert "m=19456" in str(after.user.password)
        await house.attempt("ann")

    # -------------------------------------------------------------------------------------------------------- people

    async def test_an_invitation_brings_a_user_once_within_seven_days(self, house: House) -> None:
        made = await house.people.invite(" Bob@Example.org ", "acme", ["viewer", "operator"], by=ADMIN)
        [kept] = await house.store.invitations("acme")
        assert kept.email == "bob@example.org"
        assert made.token not in repr(kept)
        user = await house.people.newcomer(kept.email, "Bob", PASSWORD, invitation=kept)
        assert user.id == kept.id
        bob = await house.people.accept(await house.people.invitation_of(made.token), user)
        assert [(one.tenant, one.roles) for one in bob.memberships] == [("acme", ("viewer", "operator"))]
        late = await house.people.invite("eve@example.org", "acme", ["viewer"], by=ADMIN)
        house.clock.forward(days=7)
        for token in (made.token, late.token, "uwi_" + "x" * 43, "", made.token[4:]):
            with pytest.raises(InvitationOver) as over:
                await house.people.invitation_of(token)
            assert over.value.detail == "this invitation was used or revoked, or is too old; ask for another"

    async def test_nobody_grants_what_he_does_not_hold_or_where_he_does_not_reach(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "viewer"))
        auditor = Principal("auditor", "acme", ("auditor",), permissions_of(("auditor",), "acme"))
        for roles, tenant, by, problem in (
            (["admin"], "acme", auditor, Forbidden),
            (["viewer"], "globex", ADMIN, NotFound),
            (["viewer"], None, ADMIN, NotFound),
            (["root"], "acme", ADMIN, RoleUnknown),
            ([], "acme", ADMIN, RoleUnknown),
        ):
            with pytest.raises(problem):
                await house.people.invite("x@example.org", tenant, roles, by=by)
        with pytest.raises(Forbidden):
            await house.people.set_roles(ann, "acme", ["admin"], by=auditor)
        with pytest.raises(NotFound):
            await house.people.set_roles(ann, "globex", ["viewer"], by=ADMIN)
        assert await house.store.invitations(None) == []
        with pytest.raises(PayloadInvalid):
            await house.people.invite("x@example.org", "no/tenant", ["viewer"], by=ROOT)

    async def test_what_is_taken_does_not_come_back_by_an_older_invitation(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "viewer"))
        made = await house.people.invite("ann@example.org", "acme", ["admin"], by=ADMIN)
        elsewhere = await house.people.invite("ann@example.org", "globex", ["viewer"], by=ROOT)
        await house.people.disable(ann, "acme", by=ADMIN)
        with pytest.raises(InvitationOver):
            await house.people.invitation_of(made.token)
        assert await house.people.invitation_of(elsewhere.token) == elsewhere.invitation
        with pytest.raises(Conflict):
            await house.people.revoke(made.invitation.id, by=ADMIN)
        with pytest.raises(NotFound):
            await house.people.revoke(elsewhere.invitation.id, by=ADMIN)

    async def test_who_is_shut_out_leaves_no_invitation_of_his_behind(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "admin"), ("globex", "admin"))
        text = await house.begin(ann)
        made = [
            await house.people.invite(
                "eve@example.org", tenant, ["admin"], by=(await house.sessions.admit(text, tenant)).principal
            )
            for tenant in ("acme", "globex")
        ]
        others = await house.people.invite("bob@example.org", "acme", ["viewer"], by=ADMIN)
        await house.people.set_roles(ann, "acme", ["viewer"], by=ADMIN)

        async def open_ones() -> set[str]:
            now = house.clock.now()
            return {str(one.id) for one in await house.store.invitations(None) if one.open_at(now)}

        assert await open_ones() == {str(made[1].invitation.id), str(others.invitation.id)}
        await house.people.disable(ann, None, by=ROOT)
        assert await open_ones() == {str(others.invitation.id)}

    async def test_nobody_changes_his_own_place(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "admin"))
        herself = (await house.sessions.admit(await house.begin(ann))).principal
        for change in (
            house.people.set_roles(ann, "acme", ["viewer"], by=herself),
            house.people.disable(ann, "acme", by=herself),
            house.people.erase(ann, by=herself),
        ):
            with pytest.raises(Conflict):
                await change

    async def test_a_new_password_ends_the_other_sessions(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "viewer"))
        here, there = await house.begin(ann), await house.begin(ann)
        with pytest.raises(PayloadInvalid):
            await house.people.change_password(ann, "acme", "too short", by="x")
        ended = await house.people.change_password(ann, "acme", "amber ladder stone", but=digest_of(here), by="x")
        assert (ended, await house.is_out(here), await house.is_out(there)) == (1, False, True)
        with pytest.raises(Conflict):
            await house.people.change_password(ann, "acme", "amber ladder brick", by="x")
        with pytest.raises(SignInRefused):
            await house.attempt("ann")
        await house.attempt("ann", "amber ladder stone")

    async def test_who_is_erased_leaves_a_number_in_the_audit_and_nothing_else(self, house: House) -> None:
        ann = await house.user("ann", ("acme", "viewer"))
        text = await house.begin(ann)
        await house.people.erase(ann, by=ROOT)
        assert await house.is_out(text)
        with pytest.raises(NotFound):
            await house.people.person(ann.user.id, None)
        await house.people.create("ann@example.org", "Ann", PASSWORD, None, ["admin"], by="cli:root")
        with pytest.raises(Conflict):
            await house.people.create("ann@example.org", "Ann", PASSWORD, None, ["admin"], by="cli:root")


@pytest.mark.parametrize(
    "email", ["", "ann", "ann@", "@x", "a b@x", "ann@x@y", "änn@x.org", "ann@ex\u0430mple.org", "\u212a@x.org"]
)
def test_an_address_that_may_look_like_another_is_none(email: str) -> None:
    with pytest.raises(PayloadInvalid):
        address_of(email)


class TestSqlite(PeopleInStore):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async for store in running(f"sqlite://{tmp_path}/unwind.db"):
            yield store


class TestPostgres(PeopleInStore):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async for store in running(postgres_url):
            yield store
