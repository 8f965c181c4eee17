"""What is personal or secret by its form never passes; what only looks similar always does."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from engine.guards.redaction import REDACTED, redact, redact_text, tells
from tests.pure.linear import seconds_to_redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc=\n-----END RSA PRIVATE KEY-----"

MUST = [
    # mail
    "ada@example.org", "ada.l+x@mail.example.co.uk", "O'Brien@example.ie", "j\u00fcrgen@m\u00fcller.de",
    "a_b-c@xn--mller-kva.de", "ada@192-168.example.com",
    # phone
    "+491701234567", "+49 170 1234567", "+49 (0)30 123456-78", "+1 (415) 555-2671", "+1-415-555-2671", "(415) 555-2671",
    "415-555-2671", "415.555.2671", "1-800-555-0199"[2:], "0049 170 1234567", "020 7946 0958", "+44 20 7946 0958",
    "+33 6 12 34 56 78", "+86 139 1234 5678",
    # card
    "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "4111+1111+1111+1111", "5555555555554444",
    "2223003122003222", "378282246310005", "3782 822463 10005", "6011111111111117", "30569309025904",
    "3530111333300000", "6200000000000005", "card_4111111111111111",
    # IBAN
    "DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "de89 3704 0044 0532 0130 00", "GB29NWBK60161331926819",
    "NL91ABNA0417164300", "FR1420041010050500013M02606", "NO9386011117947", "MT84MALT011000012345MTLCAST001S",
    "BA391290079401028494", "IT60X0542811101000000123456", "BR1800360305000010009795493C1",
    "MU17BOMM0101101030300200000MUR",
    "TR330006100519786457841326", "SE4550000000058398257466", "PL61109010140000071219812874",
    # national ids
    "078-05-1120", "123 45 6789", "1234.56.782", "529.982.247-25", "850709-9805", "131052-308T",
    "2 94 03 75 120 005 91",
    "294037512000591", "2345 6789 0124", "046-454-286", "943 476 5919", "RSSMRA85T10A562S",
    "BSN 123456782", "cpf: 52998224725", "SSN: 078051120", "passport no C012345678", "phone: 030 1234567",
    # tokens and keys
    "Bearer abc.def-ghi", "bearer 0123456789abcdef", JWT, "unw_abcd1234_" + "A" * 49, "whsec_" + "QUJD" * 8,
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc", "ghp_" + "a1B2" * 9, "github_pat_" + "a1B2_" * 8, "glpat-" + "x" * 20,
    "xoxb-123456789012-abcdefghijkl", "AKIAIOSFODNN7EXAMPLE", "AIza" + "Sy0" * 11 + "ab", PEM, PEM[:60],
]  # fmt: skip

MUST_SURVIVE = [
    # numbers and ids of our own
    "order 4111 1111 1111 1112", "ORD-2030-000123456", "4111111111111112", "order 1234567890123456",
    "INV2030-0001234567",
    "1700000000000", "1700000000000000", "20300101120000", "1234567890123456789", "9007199254740993", "100 000 000",
    "1 000 000 000 000", "1234567.89", "EUR 12345678.90", "-1234567890", "987654321", "12345678901",
    # times, versions, addresses of machines
    "2030-01-01T12:00:00.123456Z", "2030-01-01 12:00:00+02:00", "1.2.3", "2030.01.15", "v1.2.3-rc.4+build.20300101",
    "10.0.0.1:8080", "2001:db8::8a2e:370:7334", "python-3.11.7", "12:34:56.789012", "P1Y2M10DT2H30M",
    # ids and digests
    "01932847-1234-7123-8123-123456789012", "0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b", "4123-8123-123456789012",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "12345678-1234-4123-8123-123456789012/create/1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "acc_01hx2z7", "DE89370400440532013001", "DE00 is no account", "a4111111111111111b",
    "cus_ba3772463699565ba260",
    # words
    "a @ b", "left-pad@1.2.3", "actions/checkout@v4", "@mention", "100% sure", "50%off", "keyboard", "secretary",
    "max_tokens=5", "tokens: 7", "monkey: 5", "https://example.org/path?page=2", "the bearer", "C-3PO", "1/2/3",
    "crm.SignupRequestedV1", "billing.create_customer", "urn:unwind:problem:payload_invalid", "{curly} [square]",
    '{"amount": 1200, "order": "A-17"}', "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "529.982.247-26", "850709-9806", "000-12-3456", "666-12-3456", "1234.56.783", "", "x",
]  # fmt: skip


AROUND = ("{}", "see {}, please", "({})", "x={};y=1", "<{}>", '"{}"', "{}.", "line\n{}\nline", "\u00fc {} \u00fc")


@pytest.mark.parametrize("text", MUST)
def test_what_is_personal_by_its_form_is_cut_out_wherever_it_stands(text: str) -> None:
    assert tells({"a": [text]})
    for around in (
        "{}",
        "see {}, please",
        "({})",
        "x={};y=1",
        "<{}>",
        '"{}"',
        "{}.",
        "first line\n{}\nlast line",
        "\u00fc {} \u00fc",
    ):
        said = around.format(text)
        shown = redact_text(said)
        assert REDACTED in shown, said
        kept = [word for word in text.replace("\n", " ").split() if len(word) > 5 and any(map(str.isdigit, word))]
        assert not any(word in shown for word in kept), said
    assert text not in orjson.dumps(redact({"deep": [{"note": text}]})).decode()
    assert text not in orjson.dumps(redact({text: 1})).decode()


@pytest.mark.parametrize("text", MUST)
def test_wrapping_does_not_hide_it(text: str) -> None:
    inner = orjson.dumps({"note": text}).decode()
    wrapped = [
        inner,
        orjson.dumps([inner]).decode(),
        quote(text, safe=""),
        quote(quote(text, safe=""), safe=""),
        "https://example.org/?next=" + quote("/a?x=" + quote(text, safe=""), safe=""),
        quote(inner, safe=""),
    ]
    for said in wrapped:
        if said == text:
            continue
        shown = orjson.dumps(redact({"said": said})).decode()
        assert REDACTED in shown, said
        for plain in (text, quote(text, safe=""), orjson.dumps(text).decode()[1:-1]):
            assert plain not in shown, said


@pytest.mark.parametrize("text", MUST_SURVIVE)
def test_what_only_looks_similar_stays(text: str) -> None:
    assert redact_text(text) == text
    document = {"value": text, "list": [text]}
    assert redact(document) == document


def test_two_addresses_in_a_row_are_both_cut_out() -> None:
    assert redact_text("a@x.org,b@y.org;c@z.org") == "[redacted],[redacted];[redacted]"
    assert redact_text("12 4111 1111 1111 1111 12/27") == "12 [redacted] 12/27"
    assert redact_text("4111111111111111 5555555555554444") == "[redacted] [redacted]"
    assert (
        redact_text("DE89 3704 0044 0532 0130 00 NL91 ABNA 0417 1643 00 was paid") == "[redacted] [redacted] was paid"
    )


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"ada@example.org": 1}, {REDACTED: 1}),
        ({"a@x.org": 1, "b@y.org": 2, REDACTED: 3}, {REDACTED: 1, f"{REDACTED} 2": 2, f"{REDACTED} 3": 3}),
        ({"said": '{"password": "hunter2", "n": 1}'}, {"said": '{"password":"[redacted]","n":1}'}),
        ({"said": '{"a": 1, "a": "ada@x.org"}'}, {"said": '{"a":"[redacted]"}'}),
        ({"said": '{"a": "ada@x.org", "a": 1}'}, {"said": '{"a": "[redacted]", "a": 1}'}),
        ({"said": "login?user=1&password=hunter2&x=2"}, {"said": "login?user=1&password=[redacted]&x=2"}),
        ({"said": "{'api_key': 'abc', 'n': 1}"}, {"said": "{'api_key': [redacted], 'n': 1}"}),
        ({"said": 'password: "hunter2 and'}, {"said": "password: [redacted]"}),
        ({"said": "Authorization: Basic dXNlcjpwYXNz"}, {"said": "Authorization: [redacted]"}),
        ({"card": 4111111111111111, "order": 4111111111111112}, {"card": REDACTED, "order": 4111111111111112}),
        ({"phone": "030 12345", "phone_verified": True}, {"phone": REDACTED, "phone_verified": True}),
        ({"phones": 2, "mobileNumber": 491701234567}, {"phones": 2, "mobileNumber": REDACTED}),
        ({"phone": ["030 12345", None], "tel": {"home": "x"}}, {"phone": [REDACTED, None], "tel": {"home": "x"}}),
        ({"passport_no": "unknown"}, {"passport_no": "unknown"}),
        ({"passport": "C0123456"}, {"passport": REDACTED}),
        ("ada@example.org", REDACTED),
    ],
)
def test_names_texts_and_numbers_are_shown_so(document: Any, shown: Any) -> None:
    assert redact(document) == shown
    assert tells(document) or document == shown


def test_a_text_wrapped_beyond_reason_is_masked_whole() -> None:
    said = "ada@example.org"
    for _ in range(8):
        said = orjson.dumps({"x": said}).decode()
    assert "ada" not in redact_text(said)


UNITS = [
    "a", "a@", "@", "a.", "@a.", "1", "1 ", "1-", "+1", "+", "12 34 ", "4111 ", "DE89 ", "de8", "bearer ", "unw_",
    "eyJ",
    "eyJ-", "eyJaaaaaaaa.", "xoxb-", "a.a@a-", ".", "%", "%4", "%40", "%25", '"', "{", "[", "password=",
    'password:"', "a:",
    "a='", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----", "phone: 1", "(0", "00 1 ", "A", "A1", "\u00fc@", "\\",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_redaction_takes_linear_time(unit: str) -> None:
    # A quadratic pattern would take 64 times as long for 8 times the text.
    assert seconds_to_redact(unit, 200_000) < max(0.05, 24 * seconds_to_redact(unit, 25_000))


def _megabyte(length: int) -> dict[str, Any]:
    person = {
        "name": "Ada Lovelace", "email": "ada@example.org", "note": "rang +49 170 1234567 about order 2030-000123456",
        "paid": "4111 1111 1111 1111", "amount": 1200, "id": "0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b",
        "said": '{"password": "hunter2"}', "at": "2030-01-01T12:00:00.123456Z",
    }  # fmt: skip
    return {"people": [person] * (length // len(orjson.dumps(person)))}


@pytest.mark.acceptance("J7")
def test_a_megabyte_of_people_is_redacted_within_a_second_and_in_linear_time() -> None:
    def seconds(length: int) -> float:
        document = _megabyte(length)
        begun = time.thread_time()
        shown = orjson.dumps(redact(document))
        taken = time.thread_time() - begun
        for planted in (b"ada@", b"4567", b"1111", b"hunter2"):
            assert planted not in shown
        assert b"2030-000123456" in shown
        return taken

    quarter, whole = min(seconds(250_000) for _ in range(3)), min(seconds(1_000_000) for _ in range(3))
    assert whole < 1.0
    assert whole < 10 * quarter
