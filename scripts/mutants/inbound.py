"""Mutants of what comes in from outside: signed webhooks, and what may be seen of a payload; part of the catalog."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_ENDPOINTS: Final = "tests/web/test_endpoints.py"
_SIGNATURES: Final = "tests/pure/test_tokens_and_signatures.py"
_REDACTION: Final = "tests/stories/test_redaction.py"

INBOUND: Final = (
    Mutant(
        name="unknown-endpoint-told",
        law="Every cause of refusal is the same 401",
        path="consumers/web/hooks.py",
        old="    # Tried where there is no such endpoint, too: no answer comes early.\n",
        new='    if call.deps.plans.hook(path) is None:\n        raise NotFound("no such endpoint")\n',
        test=_ENDPOINTS,
        select="same_401 and sqlite",
    ),
    Mutant(
        name="any-scheme-will-do",
        law="An endpoint takes its own scheme and no other",
        path="consumers/web/hooks.py",
        old="verify_scheme(hook.scheme, headers, call.raw,",
        new='verify_scheme("standard" if "webhook-id" in headers else "github", headers, call.raw,',
        test=_ENDPOINTS,
        select="same_401 and sqlite",
    ),
    Mutant(
        name="compared-as-fast-as-it-differs",
        law="Signatures are compared in constant time",
        path="engine/guards/signatures.py",
        old="valid |= bool(secret) and hmac.compare_digest(right, signature)",
        new="valid |= bool(secret) and right == signature",
        test=_SIGNATURES,
        select="constant_time",
    ),
    Mutant(
        name="old-secret-for-ever",
        law="The secret before a rotation is taken no longer than was said",
        path="engine/hooks.py",
        old=" and accepted_until(hook, self._clock.now()) is not None",
        new="",
        test=_ENDPOINTS,
        select="as_long_as_was_said and sqlite",
    ),
    Mutant(
        name="repeat-told-by-a-header",
        law="A repeat is told by what is signed",
        path="engine/hooks.py",
        old="    text = proven\n    if text is None and hook.id_pointer",
        new="    text = str(id(message))\n    if text is None and hook.id_pointer",
        test=_ENDPOINTS,
        select="not_by_a_header and sqlite",
    ),
    Mutant(
        name="payloads-not-looked-at",
        law="Personal data is redacted before it reaches a read model",
        path="engine/store/mapper.py",
        old=" and item and name not in OURS and tells(item):",
        new=" and item and name in OURS and tells(item):",
        test=_REDACTION,
        select="nowhere_in_clear and embedded",
    ),
    Mutant(
        name="subject-shown",
        law="Who a run is about is told to nobody who reads of it",
        path="engine/store/mapper.py",
        old='    return [*marks, "/subject"] if document.get("subject") is not None else marks\n',
        new="    return marks\n",
        test="tests/pure/test_mapper.py",
        select="data_subject_is_never_shown",
    ),
    Mutant(
        name="names-not-looked-at",
        law="Personal data is masked as a name, too",
        path="engine/guards/redaction.py",
        old="            shown[_name(name, shown, wrapped)] = item\n",
        new="            shown[name] = item\n",
        test="tests/pure/test_personal.py",
        select="names_texts_and_numbers",
    ),
    Mutant(
        name="names-not-counted",
        law="What comes from outside holds a bounded number of names",
        path="contracts/envelope.py",
        old='    if body.count(b":") > MAX_NAMES and ',
        new="    if False and ",
        test="tests/pure/test_envelope.py",
        select="names_are_counted",
    ),
)
