"""Reads YAML with line numbers, and reports problems by line, key and remedy.

Scalars stay text until the models convert them: ``0700`` is not silently an octal number, a UUID of
digits stays a UUID, and ``no`` stays a word where text is expected.
"""

from __future__ import annotations

import difflib
import grp
import os
import pwd
import re
import stat
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, ValidationError

from waldur_site_agent.config.describing import sounds_secret, without_secrets

Place: TypeAlias = tuple[str | int, ...]
"""The path of a value in the file, such as ("offerings", 0, "name")."""

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem and its position."""

    line: int | None
    place: Place
    message: str


class ConfigurationError(Exception):
    """The configuration is invalid; lists all problems, not just the first."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        where = str(self.path) if problem.line is None else f"{self.path}:{problem.line}"
        place = spell(problem.place)
        return f"{where}: {place}: {problem.message}" if place else f"{where}: {problem.message}"


def spell(place: Place) -> str:
    """("offerings", 0, "name") as ``offerings[0].name``."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


@dataclass(frozen=True, slots=True)
class Source:
    """The content of a configuration file, with the line of each key."""

    path: Path
    content: dict[str, Value]
    lines: Mapping[Place, int]
    renamed: dict[Place, Place] = field(default_factory=dict)
    """Keys of :attr:`content` that have another name in the file: where they are there."""

    def as_written(self, place: Place) -> Place:
        """The place with the names that the file uses."""
        for length in range(len(place), 0, -1):
            if (written := self.renamed.get(place[:length])) is not None:
                return (*written, *place[length:])
        return place

    def line(self, place: Place) -> int | None:
        """The line of ``place``, or of the nearest enclosing value with a line."""
        place = self.as_written(place)
        for length in range(len(place), 0, -1):
            if (line := self.lines.get(place[:length])) is not None:
                return line
        return None

    def offering_number(self, name: str) -> int:
        """The index of an offering in the file."""
        entries = self.content.get("offerings")
        names = [
            str(entry.get("name")).strip() if isinstance(entry, dict) else None
            for entry in (entries if isinstance(entries, list) else ())
        ]
        return names.index(name) if name in names else 0


_QUOTED = re.compile(r"'[^']{6,}'")


def _without_values(problem: str) -> str:
    """The problem without what it quotes: a token that begins with ``*``, ``&`` or ``!``."""
    shown = _QUOTED.sub("(not shown)", problem)
    remedy = "; a value that begins with * & ! % @ or ` needs quotes"
    return shown if shown == problem else shown + remedy


def read_source(path: Path) -> Source:
    """Read the file.

    Raises:
        ConfigurationError: it cannot be read, is not YAML, or is not a mapping at its top.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        remedy = "no such file; name it with -c FILE, or make one: waldur-site-agent init"
        raise ConfigurationError(path, [Problem(None, (), remedy)]) from None
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(None, (), why_unreadable(path, error))
        raise ConfigurationError(path, [problem]) from None
    try:
        reader = _Reader(path, text)
        node = reader.loader.get_single_node()
        content = reader.value(node, ()) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else None
        message = f"is not valid YAML: {_without_values(error.problem or error.context or '')}"
        raise ConfigurationError(path, [Problem(line, (), message)]) from None
    except yaml.YAMLError as error:
        message = f"is not valid YAML: {error}"
        raise ConfigurationError(path, [Problem(None, (), message)]) from None
    if not isinstance(content, dict):
        message = f"found {type(content).__name__} at the top, expected a mapping with 'offerings'"
        raise ConfigurationError(path, [Problem(1, (), message)])
    if reader.problems:
        raise ConfigurationError(path, reader.problems)
    return Source(path, content, reader.lines)


_NULLS = {"", "~", "null", "Null", "NULL"}


class _Reader:
    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.loader = yaml.SafeLoader(text)
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, place: Place) -> Value:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.item(child, (*place, i)) for i, child in enumerate(node.value)]
        text = str(node.value)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return None if plain and text in _NULLS else text

    def item(self, node: yaml.Node, place: Place) -> Value:
        self.lines[place] = node.start_mark.line + 1
        return self.value(node, place)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Value]:
        self.report_repeated_keys(node, place)
        self.loader.flatten_mapping(node)  # resolves "<<: *anchor"
        result: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            self.lines[(*place, key)] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, (*place, key))
        return result

    def report_repeated_keys(self, node: yaml.MappingNode, place: Place) -> None:
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in first and key != "<<":
                message = f"is repeated, first on line {first[key]}; remove one of them"
                self.problems.append(Problem(line, (*place, key), message))
            first.setdefault(key, line)


_LONGEST_FOUND = 60

_CONTAINERS = ("a mapping", "a list")


def problems_of(
    error: ValidationError, source: Source, model: type[BaseModel], at: Place = ()
) -> list[Problem]:
    """Convert validation errors into problems of the file.

    Args:
        error: the validation error of the value at ``at``.
        source: the file, for line numbers and values.
        model: the validated model, for known keys.
        at: the path of the validated value in the file.
    """
    return [
        _problem(details, source, model, at)
        for details in error.errors(include_url=False, include_input=False)
    ]


def _problem(details: Any, source: Source, model: type[BaseModel], at: Place) -> Problem:
    inner: Place = tuple(details["loc"])
    found = _found(source, (*at, *inner))
    place = source.as_written((*at, *inner))
    match details["type"]:
        case "extra_forbidden":
            # never show the value: the key may be a misspelt secret
            message = f"unknown key; {_nearest(model, inner)}"
        case "missing":
            message = "is missing; it is required here"
        case "value_error" | "assertion_error":
            message = str(details["ctx"]["error"]) if "ctx" in details else details["msg"]
            if found not in _CONTAINERS:
                message = f"found {found}; {message}"
        case _:
            message = f"found {found}; {_accepted(details)}"
    return Problem(source.line(place), place, message)


def _accepted(details: Any) -> str:
    message: str = details["msg"]
    return message[0].lower() + message[1:]


def _found(source: Source, place: Place) -> str:
    value = _value_at(source.content, place)
    if value is None:  # settings of a backend stand in the content as they were written
        value = _value_at(source.content, source.as_written(place))
    names = [step for step in place if isinstance(step, str)]
    if sounds_secret(names) or any("proxy" in name or "coordination" in name for name in names):
        return "a value not shown because it may be secret"
    if isinstance(value, dict):
        return _CONTAINERS[0]
    if isinstance(value, list):
        return _CONTAINERS[1]
    if value is None:
        return "nothing"
    text = without_secrets(str(value))
    return f'"{text if len(text) <= _LONGEST_FOUND else text[:_LONGEST_FOUND] + "..."}"'


def _value_at(content: Any, place: Place) -> Any:
    for step in place:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def _nearest(model: type[BaseModel], place: Place) -> str:
    known = _known_keys(model, place[:-1])
    near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known here: {', '.join(known)}"


def _known_keys(model: type[BaseModel], place: Place) -> list[str]:
    current: Any = model
    for step in place:
        if isinstance(step, str) and _is_model(current):
            field = current.model_fields.get(step)
            current = field.annotation if field else None
        else:
            inside = [arg for arg in typing.get_args(current) if arg is not Ellipsis]
            current = inside[-1] if inside else None
        current = _without_none(current)
    return sorted(current.model_fields) if _is_model(current) else []


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kept = [a for a in typing.get_args(annotation) if a is not type(None)]
        return kept[0] if len(kept) == 1 else annotation
    return annotation


def why_unreadable(path: Path, error: OSError | UnicodeDecodeError) -> str:
    """Why the file cannot be read, and what to do; never shows its content."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
    if isinstance(error, IsADirectoryError):
        return "is a directory; name the file in it"
    if not isinstance(error, PermissionError):
        return f"cannot be read: {error.strerror or error}"
    user = _user(os.geteuid())
    closed = _closed_directory(path)
    if closed is not None:
        return (
            f'cannot be read by user "{user}": the directory {closed} {_owner_and_mode(closed)}; '
            f"let the user in (chmod o+x, or chgrp and chmod g+x), or run this as root"
        )
    return (
        f'cannot be read by user "{user}": it {_owner_and_mode(path)}; '
        f"give the file to that user or to a group of theirs (chgrp and chmod g+r), "
        "or run this as its owner or as root"
    )


def _closed_directory(path: Path) -> Path | None:
    """The first parent directory that this user may not enter."""
    for directory in reversed(path.absolute().parents):
        if not os.access(directory, os.X_OK, effective_ids=True):
            return directory
    return None


def _owner_and_mode(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "cannot be inspected"
    mode = stat.S_IMODE(found.st_mode)
    return f"has mode {mode:04o} and belongs to {_user(found.st_uid)}:{_group(found.st_gid)}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
