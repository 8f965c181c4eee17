"""Mutants of the audit, of permissions and of sign-in: who did what stands, whole, where nobody can change it unseen,
and who he was is proven.
"""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_CHAIN: Final = "tests/projections/test_audit_chain.py"
_HELD: Final = "tests/stories/test_permissions.py"
_AUDIT: Final = "tests/stories/test_audit.py"
_SIGN_IN: Final = "tests/web/test_sign_in.py"

PEOPLE: Final = (
    Mutant(
        name="exported-head-not-asked",
        law="A tail that was cut off shows against a head that was exported",
        path="projections/verifying.py",
        old="    if exported is not None:\n",
        new="    if False:\n",
        test=_CHAIN,
        select="forget and tail and sqlite",
    ),
    Mutant(
        name="own-head-not-asked",
        law="A chain reaches its own head",
        path="projections/verifying.py",
        old='    expected = [(head.number, head.hash.hex(), "its own head")]\n',
        new="    expected = []\n",
        test=_CHAIN,
        select="forget and last and sqlite",
    ),
    Mutant(
        name="unsealed-tail-not-compared",
        law="What the log holds beyond the last entry is compared too",
        path="projections/verifying.py",
        old="    if against_log and walk.holds():\n",
        new="    if False:\n",
        test=_CHAIN,
        select="forget and all and sqlite",
    ),
    Mutant(
        name="entries-deleted",
        law="The database refuses to remove an entry",
        path="projections/sql/sqlite/audit.sql",
        old="    WHEN NOT EXISTS (SELECT 1 FROM audit_rebuilding)\n",
        new="    WHEN EXISTS (SELECT 1 FROM audit_rebuilding)\n",
        test=f"{_CHAIN}::test_a_file_of_entries_is_not_changed",
    ),
    Mutant(
        name="token-without-entry",
        law="Whoever makes a token is in the audit",
        path="engine/guards/token_changes.py",
        old="        await self._log.record(token.tenant or PLATFORM, event)\n"
        "        await self._store.add_token(token)\n",
        new="        await self._store.add_token(token)\n",
        test=_AUDIT,
        select="token and embedded",
    ),
    Mutant(
        name="permissions-not-asked",
        law="A run does what whoever triggered it might do",
        path="consumers/worker.py",
        old="        if spec.permission not in held:\n",
        new="        if False:\n",
        test=_HELD,
        select="lacked and embedded",
    ),
    Mutant(
        name="permissions-of-today",
        law="A rerun has the permissions of the run before it",
        path="engine/reruns.py",
        old='            permissions=(before.trigger or {}).get("permissions"),\n',
        new="",
        test=_HELD,
        select="keeps and embedded",
    ),
    Mutant(
        name="changed-set-believed",
        law="A set of permissions that was changed permits nothing",
        path="engine/guards/permission_sets.py",
        old="held if hash_of(held) == name else frozenset()",
        new="held",
        test="tests/pure/test_tokens_and_signatures.py::test_a_set_that_is_missing_or_was_changed_permits_nothing",
    ),
    Mutant(
        name="own-run-approved",
        law="A policy forbids to decide on a run of one's own",
        path="consumers/web/acting.py",
        old="    own = state.initiator == call.principal.name\n",
        new="    own = False\n",
        test=_HELD,
        select="policy and embedded",
    ),
    Mutant(
        name="discarded-without-entry",
        law="Whoever gives a dead letter up is in the audit",
        path="engine/door.py",
        old="        await self.tenants.record(letter.tenant, told)\n",
        new="",
        test=_AUDIT,
        select="letter and embedded",
    ),
    Mutant(
        name="doctor-blind",
        law="The doctor names a guardrail that fell",
        path="engine/store/sql/sqlite/catalog.sql",
        old="SELECT 'audit append-only' AS name, count(*) = 2 AS holds,",
        new="SELECT 'audit append-only' AS name, count(*) > 0 AS holds,",
        test="tests/stories/test_guardrails.py",
        select="fell and embedded",
    ),
    Mutant(
        name="guesses-unlimited",
        law="An address that guesses tokens is slowed",
        path="engine/guards/gate.py",
        old="                self._bad.count(address, now)\n",
        new="",
        test="tests/web/test_access.py::test_an_address_that_guesses_tokens_is_slowed_and_its_neighbours_are_not",
    ),
    Mutant(
        name="use-noted-each-time",
        law="A token's last use costs no write per request",
        path="engine/guards/gate.py",
        old="        if noted is not None and now - noted < MINUTE:\n",
        new="        if False:\n",
        test="tests/web/test_access.py::test_the_last_use_of_a_token_is_seen_and_costs_no_write_per_request",
    ),
    Mutant(
        name="subject-stays-readable",
        law="What is erased opens nowhere, the name of the person too",
        path="engine/store/mapper.py",
        old="        moved = _take_out(document, _marks(document))\n",
        new="        moved = _take_out(document, event.marks)\n",
        test="tests/stories/test_shredding.py",
        select="open_nowhere and embedded",
    ),
    Mutant(
        name="token-reaches-others",
        law="A tenant's token speaks for no other tenant",
        path="engine/guards/permissions.py",
        old="        return self.tenant is None or self.tenant == tenant\n",
        new="        return True\n",
        test="tests/stories/test_isolation.py",
        select="speaks and embedded",
    ),
    Mutant(
        name="csrf-not-asked",
        law="Nothing is changed without the session's token",
        path="consumers/web/callers.py",
        old="        if not is_token(request.headers.get(TOKEN_HEADER), visit):\n",
        new="        if False:\n",
        test=f"{_SIGN_IN}::test_nothing_is_changed_without_the_session_s_token",
    ),
    Mutant(
        name="origin-not-asked",
        law="Nothing is changed by a page of another origin",
        path="consumers/web/callers.py",
        old="        check_origin(deps, request)\n",
        new="",
        test=f"{_SIGN_IN}::test_nothing_is_changed_by_a_page_of_another_origin",
    ),
    Mutant(
        name="refusals-told-apart",
        law="Every refused sign-in is the same",
        path="engine/sign_in.py",
        old="        if not await self._people.passwords.proves(password, kept) or person is None or kept is None:\n"
        '            self._refused("refused")\n            raise refused()\n',
        new="        if person is None:\n            raise SignInRefused('nobody has this address')\n"
        "        if not await self._people.passwords.proves(password, kept) or kept is None:\n"
        '            self._refused("refused")\n            raise refused()\n',
        test=f"{_SIGN_IN}::test_every_refused_sign_in_is_one_identical_401_and_leaves_nothing_but_a_count",
    ),
    Mutant(
        name="idle-session-lives",
        law="A session ends when it is not used",
        path="engine/guards/sessions.py",
        old="            and now - session.last_seen_at < self._terms.idle\n",
        new="",
        test="tests/conformance/test_people_in_store.py",
        select="Sqlite and not_used",
    ),
    Mutant(
        name="standing-not-asked",
        law="Nobody of a suspended tenant acts",
        path="consumers/web/callers.py",
        old="        require_served(visit)\n",
        new="        pass\n",
        test=f"{_SIGN_IN}::test_a_member_of_a_suspended_tenant_is_refused_by_name_and_may_sign_out",
    ),
    Mutant(
        name="granted-beyond-oneself",
        law="Nobody grants what he does not hold",
        path="engine/people.py",
        old="    if beyond:\n",
        new="    if False:\n",
        test="tests/conformance/test_people_in_store.py",
        select="Sqlite and grants",
    ),
)
