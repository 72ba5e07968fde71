"""How the ``mam-*`` commands read their arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Answer(NamedTuple):
    """What a command leaves behind."""

    exit_code: int
    stdout: str = ""
    stderr: str = ""


class RefusedError(Exception):
    """The command ends here with this complaint, and changes nothing."""

    @property
    def answer(self) -> Answer:
        """What the command says."""
        return Answer(1, "", f"{self}\n")


@dataclass
class Request:
    """Options with their values, and switches without one."""

    options: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)

    def required(self, option: str) -> str:
        """The value of an option.

        Raises:
            RefusedError: it is not there.
        """
        if option not in self.options:
            raise RefusedError(f"The option {option} must be specified")
        return self.options[option]


_SWITCHES = ("--raw", "--quiet", "--version")


def read_request(words: list[str], known: tuple[str, ...]) -> Request:
    """Sort the words of a command.

    Raises:
        RefusedError: an option that is not among ``known``, twice, or without its value.
    """
    request = Request()
    rest = iter(words)
    for word in rest:
        if word in _SWITCHES:
            request.switches.add(word)
            continue
        value = next(rest, None)
        if word not in known or value is None or word in request.options:
            raise RefusedError(f"Unknown option or missing value: {word}")
        request.options[word] = value
    return request
