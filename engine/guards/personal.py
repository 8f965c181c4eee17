"""What in a text is personal or secret by its form alone: mail addresses, phone numbers, card numbers, IBANs, national
ids, tokens, private keys. Pure, and linear in the length of the text.

Where a number has a checksum it must hold, and what has none must be written as people write it (`123-45-6789`) or
stand behind its name (`BSN 123456782`): order numbers, versions, times, UUIDs, amounts and digests stay. A mask is the
same for every value. Names of fields, marks and JSON inside of texts are `engine.guards.redaction`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from engine.guards.national import ITALIAN, NATIONAL, italian, luhn

REDACTED: Final = "[redacted]"

_SHORTEST_TOKEN: Final = 16
_FEWEST_DIGITS: Final = b"0" * 9
"""Fewer digits, with nothing but separators between them, are no number that is looked for."""
_TAX_CODE: Final = b"AAAAAA00A00A000A"

_CLASSES: Final = bytes.maketrans(b"123456789" + bytes(range(65, 91)), b"0" * 9 + b"A" * 26)
_SEPARATORS: Final = b" -.()/+"
UUID_LENGTH: Final = 36
_UUID = re.compile(r"[0-9A-Za-z]{8}-(?:[0-9A-Za-z]{4}-){3}[0-9A-Za-z]{12}")
"""Or what looks like one: five groups of letters and digits that hold no number that is looked for."""

_NEEDLES: Final = (
    "earer ", "EARER ", "eyJ", "-----BEGIN", "unw_", "whsec_", "k_live_", "k_test_", "ghp_", "gho_", "ghu_", "ghs_",
    "ghr_", "github_pat_", "glpat-", "xox", "AKIA", "ASIA", "AIza", "SG.", "npm_", "ya29.",
)  # fmt: skip
_ASSIGNED: Final = (
    "pass", "pwd", "secret", "token", "authorization", "cookie", "credential", "api", "private", "signing", "access",
    "encryption", "cvv", "cvc", "ssn",
)  # fmt: skip
"""One of these is in every name that says secret."""


def suspicious(text: str) -> bool:
    """False only when `mask`, decoding and parsing would all leave the text as it is: cheap, for the many that are."""
    length = len(text)
    if length == UUID_LENGTH and _UUID.fullmatch(text):
        return False
    if "@" in text or "%" in text:
        return True
    if length < len(_FEWEST_DIGITS):
        return "{" in text or "=" in text or ":" in text
    if "{" in text or "[" in text:
        return True
    digits = text.encode("utf-8", "surrogatepass").translate(_CLASSES, _SEPARATORS)
    if _FEWEST_DIGITS in digits or _TAX_CODE in digits:
        return True
    if length >= _SHORTEST_TOKEN:
        for needle in _NEEDLES:
            if needle in text:
                return True
    if "=" in text or ":" in text:
        lowered = text.lower()
        for needle in _ASSIGNED:
            if needle in lowered:
                return True
    return False


def mask(text: str, names_secret: Callable[[str], bool]) -> str:
    """The text without what is personal or secret in it. `names_secret` judges names before `=` and `:`."""
    if "-----BEGIN" in text:
        text = _without_keys(text)
    if "=" in text or ":" in text:
        text = _without_assigned(text, names_secret)
    text = _TOKEN.sub(REDACTED, text)
    if "@" in text:
        text = _MAIL.sub(REDACTED, text)
    digits = text.encode("utf-8", "surrogatepass").translate(_CLASSES, _SEPARATORS)
    if _TAX_CODE in digits:
        text = ITALIAN.sub(_masked(italian), text)
    return _without_numbers(text) if _FEWEST_DIGITS in digits else text


def _without_numbers(text: str) -> str:
    """In the order of how often they occur: what is left with too few digits needs no further look."""
    if "+" in text:
        text = _E164.sub(_masked(_dialled), text)
        if not _numbered(text):
            return text
    text = _without_ibans(_RUN.sub(_cards, text))
    if not _numbered(text):
        return text
    for needed, pattern, holds in NATIONAL:
        for mark in needed:
            if mark in text:
                text = pattern.sub(_masked(holds), text)
                break
    text = _NAMED_NUMBER.sub(lambda found: found.group(1) + REDACTED, text)
    if " " in text or "-" in text or "." in text or "/" in text:
        for pattern in _PHONES:
            text = pattern.sub(_masked(_dialled), text)
    return text


def _numbered(text: str) -> bool:
    return _FEWEST_DIGITS in text.encode("utf-8", "surrogatepass").translate(_CLASSES, _SEPARATORS)


def is_card(number: int) -> bool:
    """Whether a number without a text around it is a card's."""
    return _card(str(number))


def _masked(holds: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
    return lambda found: REDACTED if holds(found.group()) else found.group()


# ------------------------------------------------------------------------------------------------------------- secrets

_NAMED = re.compile(r"(?<![\w.-])([A-Za-z][\w.-]{1,60})[\"']?\s{0,3}[:=]\s{0,3}")
_VALUE = re.compile(
    r"(?i:(?:bearer|basic)\s{1,3})?"
    r"(?:\"(?:[^\"\\]|\\.)*(?:\"|\\?$)|'(?:[^'\\]|\\.)*(?:'|\\?$)|[^\s,;&\"'<>{}\[\]]+)",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"(?<![\w-])(?:(?i:bearer +[A-Za-z0-9._~+/=-]+)|unw_[A-Za-z0-9]+_[A-Za-z0-9]{20,}|whsec_[A-Za-z0-9+/=]{16,}"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[a-z]-[A-Za-z0-9-]{10,}|A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{30,}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|npm_[A-Za-z0-9]{30,}|ya29\.[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)*)",
    re.ASCII,
)


def _without_assigned(text: str, names_secret: Callable[[str], bool]) -> str:
    """`password=hunter2` and `"password": "x"` without their values; a quote that is not closed hides the rest."""
    kept, at = [], 0
    for found in _NAMED.finditer(text):
        if found.start() >= at and names_secret(found.group(1)):
            value = _VALUE.match(text, found.end())
            if value is not None:
                kept += [text[at : found.end()], REDACTED]
                at = value.end()
    return "".join(kept) + text[at:]


def _without_keys(text: str) -> str:
    """PEM blocks of private keys; one without its end reaches to the end of the text."""
    kept, at = [], 0
    while (begin := text.find("-----BEGIN ", at)) >= 0:
        head = text.find("-----", begin + 11, begin + 80)
        if head < 0 or "PRIVATE" not in text[begin:head]:
            kept.append(text[at : begin + 11])
            at = begin + 11
            continue
        kept += [text[at:begin], REDACTED]
        end = text.find("-----END ", head)
        close = text.find("-----", end + 9, end + 80) if end >= 0 else -1
        at = close + 5 if close >= 0 else len(text)
    return "".join(kept) + text[at:]


# ----------------------------------------------------------------------------------------------------------- addresses

_LOCAL = r"[\w.!#$&'*+?^`|~-]"
_MAIL = re.compile(rf"(?<!{_LOCAL}){_LOCAL}+@(?:[\w-]+\.)+(?:xn--[\w-]+|[^\W\d_]{{2,}})")

_E164 = re.compile(r"(?<![\w+.])\+[1-9](?:[ ./()-]{0,2}[0-9]){8,14}(?![\w])")
_PHONES: Final = (
    # 0049 and such, with separators only.
    re.compile(r"(?<![\w+.-])00[1-9][0-9]{0,2}(?:[ /()-]{1,2}[0-9]{2,12}){1,5}(?![\w-])"),
    # North America, and national numbers in groups.
    re.compile(
        r"(?<![\w+.-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}([ .-]))[2-9][0-9]{2}[ .-][0-9]{4}(?![\w-])"
    ),
    re.compile(r"(?<![\w+.-])\(?0[1-9][0-9]{1,3}\)?[ /][0-9]{3,4} [0-9]{3,4}(?: [0-9]{2,4})?(?![\w-])"),
)


def _dialled(text: str) -> bool:
    return 9 <= sum(map(str.isdigit, text)) <= 17


# ------------------------------------------------------------------------------------------------------------- numbers

_RUN = re.compile(r"[0-9](?:[ +-]?[0-9])*")


def _cards(found: re.Match[str]) -> str:
    """The run without the cards in it. A card is whole groups: what is written before or after it is not part of it."""
    run = found.group()
    if len(run) < 14:
        return run
    text, first, last = found.string, found.start(), found.end()
    groups = [(one.start(), one.end()) for one in re.finditer(r"[0-9]+", run)]
    if first and text[first - 1].isalpha():
        groups = groups[1:]
    if last < len(text) and text[last].isalpha():
        groups = groups[:-1]
    kept, at, index = [], 0, 0
    while index < len(groups):
        end = _card_from(run, groups, index)
        if end is None:
            index += 1
            continue
        kept += [run[at : groups[index][0]], REDACTED]
        at, index = groups[end][1], end + 1
    return "".join(kept) + run[at:]


def _card_from(run: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of the card that begins with this one."""
    digits, found = "", None
    for index in range(first, min(first + 19, len(groups))):
        begin, end = groups[index]
        digits += run[begin:end]
        if len(digits) > 19:
            break
        if _card(digits):
            found = index
    return found


def _card(digits: str) -> bool:
    return 14 <= len(digits) <= 19 and _brand(digits) and luhn(digits)


def _brand(digits: str) -> bool:
    """Whether a card of this length may begin so: what begins otherwise is some other number."""
    length, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    match digits[0]:
        case "4":
            return length in (16, 19)
        case "5":
            return length == 16 if 51 <= two <= 55 else length >= 16 and two in (50, 56, 57, 58)
        case "3":
            if two in (34, 37):
                return length == 15
            return (300 <= three <= 305 or two in (36, 38, 39)) or (3528 <= four <= 3589 and length >= 16)
        case "6":
            return length >= 16 and (four == 6011 or 644 <= three <= 649 or two in (62, 63, 65, 67))
        case "2":
            return length == 16 and 2221 <= four <= 2720
        case _:
            return False


_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})[0-9]{2}(?=[ -]?[A-Za-z0-9])")
_IBANS: Final = {
    "AD": "8n12c", "AE": "19n", "AL": "8n16c", "AT": "16n", "AZ": "4a20c", "BA": "16n", "BE": "12n", "BG": "4a6n8c",
    "BH": "4a14c", "BI": "23n", "BR": "23n1a1c", "BY": "4c4n16c", "CH": "5n12c", "CR": "18n", "CY": "8n16c",
    "CZ": "20n", "DE": "18n", "DJ": "23n", "DK": "14n", "DO": "4c20n", "EE": "16n", "EG": "25n", "ES": "20n",
    "FI": "14n", "FK": "2a12n", "FO": "14n", "FR": "10n11c2n", "GB": "4a14n", "GE": "2a16n", "GI": "4a15c",
    "GL": "14n", "GR": "7n16c", "GT": "24c", "HR": "17n", "HU": "24n", "IE": "4a14n", "IL": "19n", "IQ": "4a15n",
    "IS": "22n", "IT": "1a10n12c", "JO": "4a4n18c", "KW": "4a22c", "KZ": "3n13c", "LB": "4n20c", "LC": "4a24c",
    "LI": "5n12c", "LT": "16n", "LU": "3n13c", "LV": "4a13c", "LY": "21n", "MC": "10n11c2n", "MD": "20c", "ME": "18n",
    "MK": "3n10c2n", "MN": "16n", "MR": "23n", "MT": "4a5n18c", "MU": "4a19n3a", "NI": "4a20n", "NL": "4a10n",
    "NO": "11n", "OM": "3n16c", "PK": "4a16c", "PL": "24n", "PS": "4a21c", "PT": "21n", "QA": "4a21c", "RO": "4a16c",
    "RS": "18n", "RU": "14n15c", "SA": "2n18c", "SC": "4a20n3a", "SD": "14n", "SE": "20n", "SI": "15n", "SK": "20n",
    "SM": "1a10n12c", "SO": "19n", "ST": "21n", "SV": "4a20n", "TL": "19n", "TN": "20n", "TR": "6n16c", "UA": "6n19c",
    "VA": "18n", "VG": "4a16n", "XK": "16n", "YE": "4a4n18c",
}  # fmt: skip
"""What follows country and check digits, by the registry of ISO 13616: so many digits (n), letters (a), either (c)."""
_KINDS: Final[Mapping[str, Callable[[str], bool]]] = {"n": str.isdigit, "a": str.isalpha, "c": str.isalnum}
_FORMS: Final = {
    country: tuple((int(count), _KINDS[kind]) for count, kind in re.findall("([0-9]+)([nac])", form))
    for country, form in _IBANS.items()
}
_ALPHABET: Final = {character: int(character, 36) for character in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _without_ibans(text: str) -> str:
    kept, at = [], 0
    for found in _IBAN.finditer(text):
        form = _FORMS.get(found.group(1).upper())
        if form is not None and found.start() >= at:
            end = _iban_from(text, found.start(), form)
            if end is not None:
                kept += [text[at : found.start()], REDACTED]
                at = end
    return "".join(kept) + text[at:]


def _iban_from(text: str, start: int, form: Sequence[tuple[int, Callable[[str], bool]]]) -> int | None:
    """Where the IBAN that begins here ends. Words may follow one that is written in groups: its country says how long
    it is, and of what.
    """
    compact, at, length = "", start, 4 + sum(count for count, _ in form)
    while len(compact) < length and at < len(text):
        character = text[at]
        if character.isascii() and character.isalnum():
            compact += character.upper()
        elif character not in " -" or text[at - 1] in " -":
            return None
        at += 1
    if len(compact) < length or (at < len(text) and text[at].isalnum()):
        return None
    place = 4
    for count, holds in form:
        if not holds(compact[place : place + count]):
            return None
        place += count
    number = int("".join(str(_ALPHABET[character]) for character in compact[4:] + compact[:4]))
    return at if number % 97 == 1 else None


_NAMED_NUMBER = re.compile(
    r"((?<![A-Za-z])(?i:ssn|social security|bsn|burgerservicenummer|cpf|pesel|nino|national insurance|steuer-?id|idnr"
    r"|passport|dni|nif|nie|iban|aadhaar|phone|telephone|telefon|tel|mobile|mobil|cell|fax)(?i:[ _]?(?:number|no|nr))?"
    r"\.?[ :=#\"']{1,4})(?:[+(]{0,2}[A-Z]{0,2}[0-9](?:[ ./()-]{0,2}[0-9]){5,18}[A-Z]?)(?![0-9A-Za-z])"
)
"""Behind its name a number needs no form of its own."""


def numbers_someone(text: str) -> bool:
    """Whether a value whose name says phone, passport and such has the digits of one."""
    return sum(map(str.isdigit, text)) >= 6


def words(text: str) -> Iterator[str]:
    """The words of a name, in lower case: `userPassword`, `user_password` and `APIKey` alike."""
    return (word.lower() for word in _WORDS.findall(text))


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
