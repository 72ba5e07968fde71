"""``base``, which generates no usernames, and ``template``: usernames from attributes of the user.

Nothing is random: the same user gets the same name as long as the other names are the same. A name
that was given stays, because Waldur keeps it.
"""

from __future__ import annotations

import pwd
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from uuid import UUID

from anyascii import anyascii

from waldur_site_agent.backends import BackendSettings, NoUsernames, PermanentError, UsernameBackend
from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent_basic_username_management.settings import TemplateSettings, parse_pattern


class BaseUsernameBackend(NoUsernames):
    """Generates no usernames; accounts in Waldur are left unchanged."""


_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]")
_NOT_IN_AN_IDENTIFIER = re.compile(r"[^a-z0-9._-]")
_BEFORE_THE_FIRST_LETTER = re.compile(r"\A[^a-z]+")
_MAX_NUMBER = 9999

_SYSTEM = """
    root toor daemon bin sys sync games man lp mail news uucp proxy backup list irc gnats nobody
    nogroup adm shutdown halt operator ftp system sudo wheel staff users disk tty kmem audio video
    systemd systemd-network systemd-resolve systemd-timesync systemd-coredump messagebus dbus
    polkitd sshd sssd chrony ntp rpc rpcuser nfsnobody nslcd ldap tss pcp postfix exim avahi
"""
_SERVICES = """
    apache nginx www www-data http mysql mariadb postgres postgresql redis rabbitmq mongodb git
    docker podman puppet ansible zabbix nagios prometheus grafana slurm munge slurmdbd
    slurmrestd torque maui moab pbs condor waldur
"""
_ROLES = """
    admin administrator hostmaster postmaster webmaster abuse security support info help guest
    test user demo anonymous
"""
_ACCOUNTING_KEYWORDS = "all any default none null parent"

RESERVED = frozenset(f"{_SYSTEM} {_SERVICES} {_ROLES} {_ACCOUNTING_KEYWORDS}".split())
"""The names reserved everywhere; a site adds its own with ``reserved_names``."""


def spell(text: str, substitutions: Mapping[str, str]) -> str:
    """The text in lower-case ASCII; the substitutions (such as ``ü``: ``ue``) come first."""
    composed = unicodedata.normalize("NFC", text).lower()
    replaced = "".join(substitutions.get(letter, letter) for letter in composed)
    return anyascii(replaced).lower()


def letters_of_name(ascii_text: str) -> str:
    """Only letters and digits: ``anne-marie o'neill`` is ``annemarieoneill``."""
    return _NOT_IN_A_NAME.sub("", ascii_text)


def letters_of_identifier(ascii_text: str) -> str:
    """Letters, digits and ``._-``, for texts that are already identifiers."""
    return _NOT_IN_AN_IDENTIFIER.sub("", ascii_text)


def as_stem(text: str, max_length: int) -> str:
    """The text as a username's stem: from its first letter, cut, without trailing punctuation."""
    return _BEFORE_THE_FIRST_LETTER.sub("", text)[:max_length].rstrip("._-")


def known_to_system(name: str) -> bool:
    """Whether the operating system knows a user of this name, from any source (NSS)."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


class TemplateUsernameBackend(UsernameBackend):
    """Fills a pattern with a user's attributes; numbers names that are taken from 2 on."""

    Settings = TemplateSettings
    generating_has_effects = False

    def __init__(
        self, settings: BackendSettings, known_to_system: Callable[[str], bool] = known_to_system
    ) -> None:
        """Keep the settings; nothing is looked up yet.

        Args:
            settings: The :class:`TemplateSettings`.
            known_to_system: Looks a name up in the operating system.
        """
        super().__init__(settings)
        if not isinstance(settings, TemplateSettings):
            raise TypeError(f"TemplateSettings are needed, not {type(settings).__name__}")
        self._settings = settings
        self._pattern = parse_pattern(settings.pattern)
        self._reserved = RESERVED | {name.lower() for name in settings.reserved_names}
        self._known_to_system = known_to_system
        self._holders: Mapping[str, frozenset[UUID]] = {}
        self._given: dict[str, UUID] = {}

    def names_held(self, holders: Mapping[str, frozenset[UUID]]) -> None:
        """Set which names are taken; they include those given in the previous cycle."""
        self._holders = holders
        self._given = {}

    def get_username(self, offering_user: OfferingUser) -> str | None:
        """The name that Waldur already has for the user, unless another user has it too."""
        name = offering_user.username
        return name if name and self._is_not_held_by_others(name.lower(), offering_user) else None

    def generate_username(self, offering_user: OfferingUser) -> str:
        """Generate the user's name.

        Raises:
            PermanentError: An attribute that the pattern needs is missing or has no usable
                letter, or all numbers are taken.
        """
        stem = self._stem(offering_user)
        for name in self._candidates(stem):
            if self._is_free(name, offering_user):
                self._given[name] = offering_user.user_uuid
                return name
        raise PermanentError(
            f'{_named(offering_user)}: "{stem}" and all its numbers are taken; raise max_length '
            "or choose a pattern that tells more people apart"
        )

    def _stem(self, user: OfferingUser) -> str:
        filled = self._pattern.fill(lambda field: self._value(user, field))
        stem = as_stem(filled, self._settings.max_length)
        if not stem:
            raise PermanentError(
                f'{_named(user)}: pattern "{self._settings.pattern}" gives "{filled}", which has '
                "no letter a username could begin with; correct the name in Waldur or the pattern"
            )
        return stem

    def _candidates(self, stem: str) -> Iterator[str]:
        yield stem
        for number in range(2, _MAX_NUMBER + 1):
            digits = str(number)
            room = self._settings.max_length - len(digits)
            if room < 1:
                return
            yield as_stem(stem, room) + digits

    def _is_free(self, name: str, user: OfferingUser) -> bool:
        if name in self._reserved or not self._is_not_held_by_others(name, user):
            return False
        if self._given.get(name) == user.user_uuid:
            return True
        return not (self._settings.avoid_system_users and self._known_to_system(name))

    def _is_not_held_by_others(self, name: str, user: OfferingUser) -> bool:
        holders = self._holders.get(name, frozenset()) | {self._given.get(name, user.user_uuid)}
        return holders <= {user.user_uuid}

    def _value(self, user: OfferingUser, field: str) -> str:
        text = _ATTRIBUTES[field](user).strip()
        if not text:
            raise PermanentError(
                f"{_named(user)}: Waldur shows no {field}, which the username pattern "
                f'"{self._settings.pattern}" needs; let the offering expose it, or choose a '
                "pattern without it"
            )
        ascii_text = spell(text, self._settings.substitutions)
        is_name = field in ("first_name", "last_name", "full_name")
        value = letters_of_name(ascii_text) if is_name else letters_of_identifier(ascii_text)
        if not value:
            raise PermanentError(
                f"{_named(user)}: {field} {text!r} has no letter that a username may have; "
                "choose a pattern without it, or add substitutions"
            )
        return value


_ATTRIBUTES: Mapping[str, Callable[[OfferingUser], str]] = {
    "first_name": lambda user: user.user_first_name,
    "last_name": lambda user: user.user_last_name,
    "full_name": lambda user: user.user_full_name,
    "email_local": lambda user: user.user_email.partition("@")[0].partition("+")[0],
    "waldur_username": lambda user: user.user_username,
}


def _named(user: OfferingUser) -> str:
    return f'user "{user.user_username or user.user_uuid}"'
