"""Mutants of sign-in by an identity provider: what is believed of it, and for how long."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_TEST: Final = "tests/conformance/egress/test_sign_in.py"
_TOKENS: Final = "engine/guards/oidc/id_tokens.py"
_CLIENT: Final = "engine/guards/oidc/__init__.py"

SIGN_IN: Final = (
    Mutant(
        name="id-token-unsigned",
        law="A token that the provider did not sign signs nobody in",
        path=_TOKENS,
        old='ALGORITHMS: Final = ("RS256",',
        new='ALGORITHMS: Final = ("none", "RS256",',
        test=_TEST,
        select="did_not_sign",
    ),
    Mutant(
        name="id-token-of-another-sign-in",
        law="An ID token is good for the sign-in that asked for it",
        path=_TOKENS,
        old='    if claims.get("nonce") != nonce:\n',
        new="    if False:\n",
        test=_TEST,
        select="wrong_claim",
    ),
    Mutant(
        name="id-token-of-another-client",
        law="An ID token is good for the client that it was issued to",
        path=_TOKENS,
        old='        aud={"essential": True, "value": client_id},\n',
        new='        aud={"essential": True},\n',
        test=_TEST,
        select="wrong_claim",
    ),
    Mutant(
        name="address-verified-by-any-word",
        law="An address is verified only when the provider says true",
        path=_TOKENS,
        old='claims.get("email_verified") is True',
        new='bool(claims.get("email_verified"))',
        test=_TEST,
        select="says_true",
    ),
    Mutant(
        name="answer-of-another-browser",
        law="An answer that does not belong to this browser's sign-in signs nobody in",
        path=_CLIENT,
        old='        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):\n',
        new="        if False:\n",
        test=_TEST,
        select="does_not_belong_here",
    ),
    Mutant(
        name="answer-of-another-provider",
        law="An answer of another provider signs nobody in",
        path=_CLIENT,
        old="        if told != self.issuer:\n",
        new="        if False:\n",
        test=_TEST,
        select="does_not_belong_here",
    ),
    Mutant(
        name="attempt-used-twice",
        law="An attempt is used once",
        path="engine/guards/oidc/attempts.py",
        old="        if attempt.state in self._used:\n",
        new="        if False:\n",
        test=_TEST,
        select="used_once",
    ),
    Mutant(
        name="description-of-another-issuer",
        law="A description counts only when it names the configured issuer",
        path="engine/guards/oidc/discovery.py",
        old="        if found.issuer != self.issuer:\n",
        new="        if False:\n",
        test=_TEST,
        select="cannot_be_trusted",
    ),
)
