"""The texts of the notifications module's mails, as data: subject, body, and the values each needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_PLACE = re.compile(r"\{([a-z_]+)\}")


class ValueMissing(Exception):
    """A template needs a value that was not given."""

    def __init__(self, name: str) -> None:
        super().__init__(f"give a value for {name}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Mail:
    subject: str
    body: str

    def fill(self, values: Mapping[str, str]) -> Mail:
        """Raises `ValueMissing`. Values are put in as they are: mails are plain text. A subject is one line."""
        subject = " ".join(_fill(self.subject, values).split())
        return Mail(subject, _fill(self.body, values))


MAILS: Final[Mapping[str, Mail]] = {
    "activation": Mail(
        "Activate your account at {tenant_name}",
        "Hello {name},\n\n{tenant_name} is being set up and you are its owner.\n"
        "Activate your account here:\n\n  {link}\n",
    ),
    "welcome": Mail(
        "Welcome, {name}",
        "Hello {name},\n\nyour account is ready. Please confirm your address:\n\n  {link}\n",
    ),
    "suspended": Mail(
        "{tenant_name} is suspended",
        "Hello {name},\n\n{tenant_name} is suspended: {reason}.\n",
    ),
    "reinstated": Mail(
        "{tenant_name} works again",
        "Hello {name},\n\n{tenant_name} is no longer suspended: {reason}.\n",
    ),
    "closed": Mail(
        "{tenant_name} is closed",
        "Hello {name},\n\n{tenant_name} is closed: {reason}. Nobody can sign in any more and nothing is charged.\n",
    ),
    "provisioning_failed": Mail(
        "{tenant_name} could not be set up",
        "Hello {name},\n\nsetting up {tenant_name} did not succeed. You are not charged.\n",
    ),
}


def _fill(text: str, values: Mapping[str, str]) -> str:
    def value(place: re.Match[str]) -> str:
        try:
            return values[place[1]]
        except KeyError:
            raise ValueMissing(place[1]) from None

    return _PLACE.sub(value, text)
