"""How sacctmgr reads its arguments: names in lower case, comma lists, brackets, where and set."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from waldur_site_agent.backends import simulation
from waldur_site_agent.backends.simulation import Answer, RefusedError


@dataclass
class Request:
    """The words after the entity, as ``key=value`` by where and set, and words without ``=``."""

    where: dict[str, str] = field(default_factory=dict)
    set: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    has_where: bool = False


_BRACKETS = re.compile(r"^(.*)\[([0-9,-]+)\](.*)$")
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")


def read_request(words: list[str], known: tuple[str, ...]) -> Request:
    """Sort the words of a command.

    Raises:
        RefusedError: a ``key=value`` whose key is none of ``known``.
    """
    request = Request()
    target = request.where
    for word in words:
        key, separator, value = word.partition("=")
        if word.lower() == "where":
            request.has_where, target = True, request.where
        elif word.lower() == "set":
            target = request.set
        elif not separator:
            request.words.append(word.lower())
        elif _keyword(key, known) is None:
            raise RefusedError(unknown_option(word))
        else:
            target[_keyword(key, known) or ""] = value
    return request


def unknown_option(word: str) -> Answer:
    """The answer to an option that is not understood."""
    said = f" Unknown option: {word}\n Use keyword 'where' to modify condition\n"
    return Answer(1, "", said)


def names(value: str, *, keep_case: bool = False) -> list[str]:
    """Expand a list of names the way sacctmgr does: this is why names are checked before."""
    plain = value.replace('"', "")
    parts = _OUTSIDE_BRACKETS.split(plain) if "[" in plain else plain.split(",")
    expanded = (name for p in parts for name in _expanded(p if keep_case else lowered(p)))
    return list(dict.fromkeys(name[:255] for name in expanded if name))


def lowered(text: str) -> str:
    """Lower-case as C does it in the C locale: letters outside ASCII stay."""
    if text.isascii():
        return text.lower()
    return "".join(c.lower() if c.isascii() else c for c in text)


def _keyword(key: str, known: tuple[str, ...]) -> str | None:
    asked = key.lower()
    shortest = 2
    if asked in known:
        return asked
    if len(asked) < shortest:
        return None
    return next((word for word in known if word.startswith(asked)), None)


def _expanded(name: str) -> list[str]:
    match = _BRACKETS.match(name)
    if match is None:
        return [name]
    before, inside, after = match.groups()
    result = []
    for part in inside.split(","):
        first, _, last = part.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        result += [f"{before}{number:0{len(first)}d}{after}" for number in numbers]
    return result


MODULE = "waldur_site_agent_slurm.simulator"
PROGRAMS = ("sacct", "sacctmgr", "scancel", "scontrol", "squeue", "sreport")


def write_executables(directory: Path, state_file: Path) -> Path:
    """Make the directory with its commands, all on the cluster in ``state_file``; return it."""
    return simulation.write_executables(directory, state_file, MODULE, PROGRAMS)
