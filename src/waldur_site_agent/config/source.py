"""Reads YAML without interpreting it, and remembers where everything stood.

Scalars stay text and become typed by the models: so ``0700`` is not silently an octal number, an
offering UUID of digits stays a UUID, and ``no`` is a word where a word is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import yaml

from waldur_site_agent.config.problems import ConfigurationError, Problem
from waldur_site_agent.config.unreadable import why_unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Place: TypeAlias = tuple[str | int, ...]
"""The way from the top of the file to a value: ("offerings", 0, "name")."""

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"

_NULLS = {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True)
class Source:
    """The content of a configuration file, with the line on which each key stands."""

    path: Path
    content: dict[str, Value]
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int | None:
        """The line of ``place``, or of the nearest thing around it that has one."""
        for length in range(len(place), 0, -1):
            if (line := self.lines.get(place[:length])) is not None:
                return line
        return None

    def offering_number(self, name: str) -> int:
        """The place of an offering among the entries of the file, from 0."""
        entries = self.content.get("offerings")
        names = [
            str(entry.get("name")).strip() if isinstance(entry, dict) else None
            for entry in (entries if isinstance(entries, list) else ())
        ]
        return names.index(name) if name in names else 0


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
                message = f"stands twice, first on line {first[key]}; remove one of the two"
                self.problems.append(Problem(line, (*place, key), message))
            first.setdefault(key, line)


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
        message = f"is not valid YAML: {error.problem or error.context}"
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
