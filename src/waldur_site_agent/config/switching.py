"""Reads files written for version 1: what became of each of its keys.

The keys themselves are data: those of the file and of offerings in ``config.version_1``, those of
``backend_settings`` with the settings of each backend (``BackendSettings.version_1``). The loader,
``migrate`` and the table in docs/switch-over.md all use the same rows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from waldur_site_agent.config.settings import FALSE_WORDS
from waldur_site_agent.config.source import Place, Problem, Source, Value

EACH = "*"
"""In the path of a key: any key of a mapping, or any item of a list."""


class Answer(enum.Enum):
    """What became of a key of version 1."""

    DONE = "done"
    """It does what it did, or what it was meant to do."""
    RENAMED = "same under another name"
    """Both names work; using both at once is an error."""
    NOT_NEEDED = "not needed"
    """Accepted without effect; a line at start says why."""
    NOT_SUPPORTED = "not supported"
    """An error that says what to do instead, unless the value turns the feature off."""
    LATER = "not yet supported"
    """As :attr:`NOT_SUPPORTED`, for features that are still to come."""


def is_empty(value: Any) -> bool:
    """Whether a key has no value, as placeholders have."""
    return value is None or value in ("", [], {})


def is_off(value: Any) -> bool:
    """Whether a value is empty or turns a feature off."""
    return is_empty(value) or str(value).strip().lower() in FALSE_WORDS


def unless_enabled(*switches: str) -> Callable[[Any], bool]:
    """A mapping is off unless one of these keys in it is on; by default ``enabled``."""

    def off(value: Any) -> bool:
        if not isinstance(value, dict):
            return is_off(value)
        return all(is_off(value.get(switch)) for switch in switches or ("enabled",))

    return off


def unless_other_than(*values: str) -> Callable[[Any], bool]:
    """A key is off if it is empty or has one of these values."""
    return lambda value: is_empty(value) or str(value).strip().lower() in values


@dataclass(frozen=True, slots=True, kw_only=True)
class OldKey:
    """One key of version 1. Use the functions below to make one."""

    answer: Answer
    text: str = ""
    """Why it is not needed, what to do instead, or what differs."""
    name: str = ""
    """Its present name, if it was renamed."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Values that are spelt differently now, in lower case."""
    differs: bool = False
    """Whether a site that has the key may notice what :attr:`text` says."""
    off: Callable[[Any], bool] = is_off
    """Which values turn the feature off, so that nothing is lost without it."""


OldKeys: TypeAlias = Mapping[str, OldKey]
"""Rows by path, such as ``offerings.*.name``. A row answers for everything below its path."""


def done(
    text: str = "",
    *,
    values: Mapping[str, str] | None = None,
    differs: bool = False,
) -> OldKey:
    """A key that works; ``differs``: the text is about something that a site will notice."""
    return OldKey(
        answer=Answer.DONE,
        text=text,
        values=values or {},
        differs=differs,
    )


def renamed(name: str, text: str = "", values: Mapping[str, str] | None = None) -> OldKey:
    """A key that has another name now."""
    return OldKey(answer=Answer.RENAMED, text=text, name=name, values=values or {})


def not_needed(why: str) -> OldKey:
    """A key that is accepted without effect."""
    return OldKey(answer=Answer.NOT_NEEDED, text=why)


def not_supported(remedy: str, off: Callable[[Any], bool] = is_off) -> OldKey:
    """A key that is an error where it is on."""
    return OldKey(answer=Answer.NOT_SUPPORTED, text=remedy, off=off)


def later(remedy: str, off: Callable[[Any], bool] = is_off) -> OldKey:
    """A key of a feature to come; until then, an error where it is on."""
    return OldKey(answer=Answer.LATER, text=remedy, off=off)


class Effect(enum.Enum):
    """What reading a file did with one of its keys."""

    KEPT = enum.auto()
    RENAMED = enum.auto()
    IGNORED = enum.auto()
    """Not needed; worth a line."""
    DROPPED = enum.auto()
    """Empty or off, so that nothing is lost."""
    REFUSED = enum.auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """A key of version 1 in a file."""

    place: Place
    """Where it is, as written in the file."""
    key: OldKey
    effect: Effect
    message: str = ""
    """For keys that are ignored or refused, and what a site may notice of others."""

    def problem(self, source: Source | None) -> Problem:
        """The finding with its line."""
        line = None if source is None else source.line(self.place)
        return Problem(line, self.place, self.message)


def translate(
    content: dict[str, Any], keys: OldKeys, at: Place = (), source: Source | None = None
) -> list[Finding]:
    """Rewrite a mapping of the file as the present version spells it, in place.

    Args:
        content: the mapping at ``at``.
        keys: the rows, with paths relative to ``at``.
        at: where the mapping is in the file.
        source: the file; it remembers under which name a renamed key was written.

    Returns:
        A finding for each key that has a row, except those that work unchanged.
    """
    return list(_Translation(keys, source).mapping(content, at, ""))


def refused(findings: Iterable[Finding], source: Source | None) -> list[Problem]:
    """The errors among the findings."""
    return [each.problem(source) for each in findings if each.effect is Effect.REFUSED]


def ignored(findings: Iterable[Finding], source: Source | None) -> list[Problem]:
    """What has no effect any more, each with the reason."""
    return [each.problem(source) for each in findings if each.effect is Effect.IGNORED]


def differing(findings: Iterable[Finding], source: Source) -> list[Problem]:
    """What a site may notice of the keys that work."""
    kept = (each for each in findings if each.effect is Effect.KEPT)
    return [each.problem(source) for each in kept if each.message]


class _Translation:
    def __init__(self, keys: OldKeys, source: Source | None) -> None:
        self._keys = keys
        self._source = source
        self._above = {
            ".".join(path.split(".")[:length])
            for path in keys
            for length in range(1, path.count(".") + 1)
        }

    def mapping(self, content: dict[str, Any], at: Place, path: str) -> Iterator[Finding]:
        for name in list(content):
            inner = self._path(path, name)
            row = self._keys.get(inner)
            if row is not None:
                finding = self._treat(content, name, row, at)
                yield finding
                if finding.effect is not Effect.KEPT:
                    continue
            if inner in self._above:
                yield from self._inside(content[name], (*at, name), inner)

    def _inside(self, value: Value, place: Place, path: str) -> Iterator[Finding]:
        if isinstance(value, dict):
            yield from self.mapping(value, place, path)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from self._inside(item, (*place, number), self._path(path, EACH))

    def _path(self, path: str, name: str) -> str:
        exact = f"{path}.{name}" if path else name
        known = exact in self._keys or exact in self._above
        return exact if known else f"{path}.{EACH}" if path else EACH

    def _treat(self, content: dict[str, Any], name: str, row: OldKey, at: Place) -> Finding:
        place, value = (*at, name), content[name]
        match row.answer:
            case Answer.DONE:
                word = str(value).strip().lower()
                content[name] = row.values.get(word, value)
                said = row.text if row.differs and not is_off(value) else ""
                return Finding(place, row, Effect.KEPT, said)
            case Answer.RENAMED:
                return self._rename(content, name, row, at)
            case Answer.NOT_NEEDED:
                del content[name]
                effect = Effect.DROPPED if is_empty(value) else Effect.IGNORED
                return Finding(place, row, effect, f"not needed: {row.text}")
            case _:
                del content[name]
                if row.off(value):
                    return Finding(place, row, Effect.DROPPED)
                return Finding(place, row, Effect.REFUSED, f"{row.answer.value}; {row.text}")

    def _rename(self, content: dict[str, Any], name: str, row: OldKey, at: Place) -> Finding:
        place, value = (*at, name), content.pop(name)
        if row.name in content:
            if is_empty(value):
                return Finding(place, row, Effect.DROPPED)
            both = f"is the former name of {row.name}, which is also set; keep one of them"
            return Finding(place, row, Effect.REFUSED, both)
        content[row.name] = row.values.get(str(value).strip().lower(), value)
        if self._source is not None:
            self._source.renamed[(*at, row.name)] = place
        return Finding(place, row, Effect.RENAMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class OldDefault:
    """A default that differs from that of version 1 and changes bills or access."""

    key: str
    """The present name of the key; where it is written, the site has decided."""
    text: str
    """What happens without it, and what happened in version 1."""
    line: str
    """The line of YAML that keeps the behaviour of version 1."""

    def remark(self, at: Place, source: Source) -> Problem:
        """The remark about the mapping at ``at``, which lacks the key."""
        message = f'{self.text}; to keep the behaviour of version 1, add "{self.line}"'
        return Problem(source.line(at) if at else None, at, message)


def row_of(keys: OldKeys, path: str) -> OldKey | None:
    """The row that answers for a path: its own, or that of the nearest key above it."""
    steps = path.split(".")
    for length in range(len(steps), 0, -1):
        if (row := keys.get(".".join(steps[:length]))) is not None:
            return row
    return None


def table(rows: OldKeys) -> Iterator[str]:
    """The rows as a table in Markdown."""
    yield "| key | answer | |"
    yield "|---|---|---|"
    for key, row in rows.items():
        answer = f"{row.answer.value}: `{row.name}`" if row.name else row.answer.value
        text = row.text.replace("|", "\\|")
        yield f"| `{key}` | {answer} | {text} |"
