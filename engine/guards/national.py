"""National ids by their form and checksum: how each is written, and whether these digits can be one. Pure. Called by
`engine.guards.personal`; a form without a checksum is here only where nothing else is written like it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others, as on cards."""
    total = 0
    for at, character in enumerate(reversed(digits)):
        digit = ord(character) - 48
        total += digit if at % 2 == 0 else digit * 2 - 9 * (digit > 4)
    return total % 10 == 0


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdigit()]


def _dutch(text: str) -> bool:
    digits = _digits(text)
    return sum(digit * weight for digit, weight in zip(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True)) % 11 == 0


def _brazilian(text: str) -> bool:
    digits = _digits(text)
    if len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(digit * (length + 1 - at) for at, digit in enumerate(digits[:length]))
        if digits[length] != total * 10 % 11 % 10:
            return False
    return True


def _swedish(text: str) -> bool:
    digits = "".join(character for character in text if character.isdigit())[-10:]
    return _day(digits[2:4], digits[4:6], coordination=60) and luhn(digits)


def _finnish(text: str) -> bool:
    number = int(text[:6] + text[7:10])
    return _day(text[2:4], text[:2]) and "0123456789ABCDEFHJKLMNPRSTUVWXY"[number % 31] == text[10]


def _french(text: str) -> bool:
    compact = text.replace(" ", "").replace("2A", "19").replace("2B", "18")
    return int(compact[13:]) == 97 - int(compact[:13]) % 97


def _british_patient(text: str) -> bool:
    digits = _digits(text)
    check = 11 - sum(digit * (10 - at) for at, digit in enumerate(digits[:9])) % 11
    return check != 10 and check % 11 == digits[9]


_VERHOEFF_D: Final = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678", "5987604321", "6598710432", "7659821043",
    "8765932104", "9876543210",
)  # fmt: skip
_VERHOEFF_P: Final = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def _indian(text: str) -> bool:
    check = 0
    for at, digit in enumerate(reversed(_digits(text))):
        check = int(_VERHOEFF_D[check][int(_VERHOEFF_P[at % 8][digit])])
    return check == 0


_ODD: Final = dict(
    zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True),
) | dict(
    zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22,
                                       25, 24, 23), strict=True)
)  # fmt: skip
ITALIAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z](?![A-Za-z0-9])")


def italian(text: str) -> bool:
    total = sum(
        _ODD[character] if at % 2 == 0 else (int(character) if character.isdigit() else ord(character) - 65)
        for at, character in enumerate(text[:15])
    )
    return chr(65 + total % 26) == text[15]


def _day(month: str, day: str, coordination: int = 0) -> bool:
    number = int(day)
    return 1 <= int(month) <= 12 and (1 <= number <= 31 or 1 <= number - coordination <= 31)


def _canadian(text: str) -> bool:
    return luhn("".join(character for character in text if character.isdigit()))


NATIONAL: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...]] = (
    # United States: no checksum, but parts that never occur.
    (" -", re.compile(r"(?<![\w.-])(?!000|666|9)[0-9]{3}([ -])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![\w-])"), bool),
    (".", re.compile(r"(?<![\w.-])[0-9]{4}\.[0-9]{2}\.[0-9]{3}(?![\w-])"), _dutch),
    (".", re.compile(r"(?<![\w.-])[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}(?![\w-])"), _brazilian),
    ("-+", re.compile(r"(?<![\w.-])(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}(?![\w-])"), _swedish),
    ("-+ABCDEF", re.compile(r"(?<![\w.-])[0-9]{6}[-+A-F][0-9]{3}[0-9A-Y](?![\w-])"), _finnish),
    (
        "12",
        re.compile(
            r"(?<![\w.-])[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?(?:[0-9]{2}|2[AB])(?: ?[0-9]{3}){2}"
            r" ?[0-9]{2}(?![\w-])"
        ),
        _french,
    ),
    (" ", re.compile(r"(?<![\w.-])[2-9][0-9]{3} [0-9]{4} [0-9]{4}(?![\w-])(?! [0-9])"), _indian),
    ("-", re.compile(r"(?<![\w.-])[0-9]{3}-[0-9]{3}-[0-9]{3}(?![\w-])"), _canadian),
    (" -", re.compile(r"(?<![\w.-])[0-9]{3}([ -])[0-9]{3}\1[0-9]{4}(?![\w-])"), _british_patient),
)  # fmt: skip
"""One of which characters stands in it, how it is written, and whether these digits can be one."""
