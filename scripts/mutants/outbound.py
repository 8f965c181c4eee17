"""Mutants of what goes out: secrets, and where they may go."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_SECRETS: Final = "tests/conformance/test_secrets_in_store.py"
_OUTBOUND: Final = "tests/conformance/egress/test_outbound.py"
_HTTP: Final = "tests/conformance/egress/test_http_secrets.py"
_BOUND: Final = "    return orjson.dumps([_SCHEME, tenant, name, version, kind, hosts])\n"

OUTBOUND: Final = (
    *(
        Mutant(
            name=f"secret-not-bound-to-its-{part}",
            law="A row of a secret opens in its own place only",
            path="engine/guards/secrets.py",
            old=_BOUND,
            new=_BOUND.replace(f", {part}", ""),
            test=_SECRETS,
            select="in_its_own_place and Sqlite",
        )
        for part in ("tenant", "name", "version", "kind", "hosts")
    ),
    Mutant(
        name="replaced-secret-keeps-its-key",
        law="What a version replaces goes with its data key",
        path="engine/store/sql/sqlite/secrets.sql",
        old="DELETE FROM keys WHERE tenant = :tenant AND scope = :scope\nAND coalesce",
        new="DELETE FROM keys WHERE false AND tenant = :tenant AND scope = :scope\nAND coalesce",
        test=_SECRETS,
        select="one_data_key and Sqlite",
    ),
    Mutant(
        name="echo-unmasked",
        law="What a server says again of a secret is seen nowhere",
        path="engine/actions/http.py",
        old="        masked: dict[str, Any] = secrets.mask.document(output)\n        return masked\n",
        new="        return output\n",
        test=_HTTP,
        select="proves_the_call",
    ),
    Mutant(
        name="token-unmasked",
        law="The canary is seen nowhere: an access token is masked as what it was bought with",
        path="engine/actions/http_auth.py",
        old="        self._hidden.add(token.get_secret_value())\n",
        new="",
        test="tests/stories/test_canary.py",
        select="seen_nowhere and embedded",
    ),
    Mutant(
        name="secrets-follow-redirects",
        law="Secrets stay with the origin they were meant for",
        path="engine/actions/http.py",
        old="secrets if at_home else None",
        new="secrets",
        test="tests/conformance/egress/test_http_redirects.py",
        select="stay_with_the_origin",
    ),
    Mutant(
        name="secret-sent-anywhere",
        law="A secret goes to its hosts only",
        path="engine/actions/http_auth.py",
        old="                opened.require(url.target)\n",
        new="",
        test=_HTTP,
        select="its_hosts_only",
    ),
    Mutant(
        name="tenant-opens-loopback",
        law="Only the operator's sandbox opens loopback, whatever a tenant's rules say",
        path="engine/guards/outbound.py",
        old="        if not self.allow or not openable(address):\n",
        new="        if not self.allow:\n",
        test=_OUTBOUND,
        select="never_loopback",
    ),
    Mutant(
        name="opened-to-everybody",
        law="A private host is opened to one tenant alone",
        path="engine/guards/outbound.py",
        old="            rules = Rules.of(await self._catalog.egress_rules(tenant))\n",
        new='            rules = Rules.of(await self._catalog.egress_rules("acme"))\n',
        test=_OUTBOUND,
        select="its_tenant_alone and sqlite",
    ),
    Mutant(
        name="window-a-slot-short",
        law="No stretch of time holds more requests than the rate",
        path="engine/guards/outbound.py",
        old="slots=SLOTS + 1,",
        new="slots=SLOTS - 1,",
        test=_OUTBOUND,
        select="no_stretch and sqlite",
    ),
    Mutant(
        name="lease-outlives-its-slot",
        law="A lease is good in its slot only",
        path="engine/guards/outbound.py",
        old="lease is None or lease.slot != slot or",
        new="lease is None or",
        test=_OUTBOUND,
        select="in_its_slot_only and sqlite",
    ),
    Mutant(
        name="mail-outside-the-rules",
        law="Mail of a tenant keeps to its rules and its rate",
        path="consumers/modules/notifications.py",
        old="tenant=tenant, turn_seconds=TURN_SECONDS",
        new="tenant=None, turn_seconds=TURN_SECONDS",
        test="tests/stories/test_mail.py",
        select="none_is_lost and embedded",
    ),
    Mutant(
        name="old-secret-signs-no-more",
        law="While a secret of an outlet is replaced, both sign",
        path="engine/outlets.py",
        old="            sealed.append((outlet.version - 1, outlet.old_secret))\n",
        new="            pass\n",
        test="tests/stories/test_outlets.py",
        select="again_until_it_is_taken and embedded",
    ),
    Mutant(
        name="notice-given-up",
        law="A notice is delivered again until it is taken",
        path="consumers/notifier.py",
        old="status == 410 or attempts > len(PAUSES_SECONDS)",
        new="True",
        test="tests/stories/test_outlets.py",
        select="again_until_it_is_taken and embedded",
    ),
    Mutant(
        name="redelivered-as-another",
        law="A notice that is sent again keeps its id and its document",
        path="engine/outlets.py",
        old='"webhook-id": delivery.message_id,',
        new='"webhook-id": str(uuid4()),',
        test="tests/stories/test_outlets.py",
        select="sent_again_as_it_was and embedded",
    ),
    Mutant(
        name="redelivery-without-an-entry",
        law="Whoever has a notice sent again is in the audit",
        path="engine/outlets.py",
        old="""        await self._log.record(
            tenant, NoticesRedelivered(at=now, outlet=outlet.name, message_id=None, since=since, by=by)
        )
""",
        new="",
        test="tests/stories/test_outlets.py",
        select="sent_again_as_it_was and embedded",
    ),
    Mutant(
        name="in-hand-sent-again",
        law="What is in somebody's hand is not sent again beside it",
        path="engine/store/sql/sqlite/outlets.sql",
        old="AND (state <> 'waiting' OR due_at > :soon)",
        new="",
        test="tests/conformance/test_store_sqlite.py",
        select="left_alone",
    ),
    Mutant(
        name="words-as-a-label",
        law="A label has few values: what a person wrote is none",
        path="consumers/census.py",
        old='queue.switched_why if queue.switched_why in DISABLED else "person"',
        new="queue.switched_why",
        test="tests/stories/test_outlets.py",
        select="name_where_notices_pile_up and embedded",
    ),
    Mutant(
        name="disabled-piles-up",
        law="What waits for a disabled outlet wakes nobody up for being old",
        path="consumers/census.py",
        old="enabled = [queue for queue in queues if queue.enabled]",
        new="enabled = queues",
        test="tests/stories/test_outlets.py",
        select="name_where_notices_pile_up and embedded",
    ),
    Mutant(
        name="outlet-hears-of-others",
        law="An outlet takes the notices of its tenant",
        path="engine/outlets.py",
        old="for owner in dict.fromkeys((tenant, PLATFORM))",
        new="for owner in known",
        test="tests/stories/test_outlets.py",
        select="again_until_it_is_taken and embedded",
    ),
    Mutant(
        name="secret-in-clear",
        law="A secret goes over https only",
        path="engine/actions/http_auth.py",
        old='                if url.scheme != "https" and not egress.opens(url.target):\n',
        new="                if False:\n",
        test=_HTTP,
        select="its_hosts_only",
    ),
)
