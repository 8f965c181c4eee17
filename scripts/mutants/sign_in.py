"""Mutants of sign-in by an identity provider: what is believed of it, and for how long."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_TEST: Final = "tests/conformance/egress/test_sign_in.py"
_WEB: Final = "tests/web/test_oidc.py"
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
        name="any-address-links",
        law="An address that is not verified links and accepts nothing",
        path="engine/guards/oidc/vouched.py",
        old="        return self.email if self.email_verified else None\n",
        new="        return self.email\n",
        test=_WEB,
        select="not_verified and sqlite",
    ),
    Mutant(
        name="second-identity-links",
        law="A user is linked by a verified address once",
        path="engine/oidc_sign_in.py",
        old="if one.issuer == vouched.issuer",
        new="if one.subject == vouched.subject",
        test=_WEB,
        select="verified_address_once and sqlite",
    ),
    *(
        Mutant(
            name=f"squatter-keeps-his-{what}",
            law="Whoever had a user of that address before is out",
            path="engine/oidc_sign_in.py",
            old=old,
            new=new,
            test=_WEB,
            select="before_is_out and sqlite",
        )
        for what, old, new in (
            ("password", "        if user.password is not None and not await", "        if False and not await"),
            ("session", "        await rows.end_sessions(user.id, but=None, now=self._clock.now())\n", ""),
        )
    ),
    Mutant(
        name="return-to-anywhere",
        law="A sign-in leads back to a path of this installation",
        path="consumers/web/oidc.py",
        old="    if not is_path(return_to):\n",
        new="    if False:\n",
        test=_WEB,
        select="redirect_and_cookie and sqlite",
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
