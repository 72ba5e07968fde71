"""Rewrites the text of a file from version 1 in the present spelling.

Only what must change changes: the rest of the text, comments and anchors included, stays byte for
byte. Pure: findings and text go in, text comes out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import yaml

from waldur_site_agent.config.source import Place
from waldur_site_agent.config.switching import Effect, Finding

_WIDTH = 100
_Pairs = list[tuple[yaml.Node, yaml.Node]]


@dataclass(frozen=True, slots=True)
class Advice:
    """A line that keeps the behaviour of version 1, for the mapping at a place."""

    place: Place
    text: str
    line: str


@dataclass(frozen=True, slots=True)
class _Key:
    """A key in the text."""

    name: yaml.Node
    value: yaml.Node
    mapping: yaml.MappingNode
    following: yaml.Node | None
    """The next key of the same mapping."""
    preceding_end: int
    """Where the value before it ends; where the mapping begins, if there is none."""
    siblings: _Pairs
    """All keys of the mapping as written, with their values."""

    @property
    def start(self) -> int:
        return int(self.name.start_mark.index)

    @property
    def is_alias(self) -> bool:
        """Whether the value is written somewhere else, and only referred to here."""
        after = self.following.start_mark.index if self.following else None
        begin = self.value.start_mark.index
        return begin < self.start or (after is not None and begin > after) or not self._is_near()

    def _is_near(self) -> bool:
        return bool(self.value.start_mark.index <= self.mapping.end_mark.index)

    @property
    def end(self) -> int:
        """Where the key's value ends in the text; 0 if it is written somewhere else."""
        return 0 if self.is_alias else _end_of(self.value)


def _end_of(node: yaml.Node) -> int:
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return max(map(_end_of, last)) if isinstance(last, tuple) else _end_of(last)
    return int(node.end_mark.index)


class _Layout:
    """Where each key of the file is in its text; merged keys are where their anchor is."""

    def __init__(self, text: str) -> None:
        self._loader = yaml.SafeLoader(text)
        self._keys: dict[int, _Key] = {}
        self._keys_met: set[int] = set()
        self.places: dict[Place, _Key] = {}
        self.mappings: dict[Place, yaml.MappingNode] = {}
        root = self._loader.get_single_node()
        if root is not None:
            self._note(root)
            self._walk(root, ())

    def _note(self, node: yaml.Node) -> None:
        """Note the keys as written, before merged ones are put in."""
        if id(node) in self._keys_met or not isinstance(node, yaml.CollectionNode):
            return
        self._keys_met.add(id(node))
        if not isinstance(node, yaml.MappingNode):
            for item in node.value:
                self._note(item)
            return
        pairs: _Pairs = list(node.value)
        end = int(node.start_mark.index)
        for number, (name, value) in enumerate(pairs):
            following = pairs[number + 1][0] if number + 1 < len(pairs) else None
            key = _Key(name, value, node, following, end, pairs)
            self._keys[id(name)] = key
            end = key.end or int(name.end_mark.index)
            self._note(value)

    def _walk(self, node: yaml.Node, place: Place) -> None:
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._walk(item, (*place, number))
        elif isinstance(node, yaml.MappingNode):
            self.mappings[place] = node
            self._loader.flatten_mapping(node)  # as the reader of the file does
            for name, value in node.value:
                inner = (*place, str(name.value))
                if (key := self._keys.get(id(name))) is not None:
                    self.places[inner] = key
                self._walk(value, inner)


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    text: str


def migrated(text: str, findings: Iterable[Finding], advice: Iterable[Advice]) -> str:
    """The text of the file in the present spelling, with differences as comments.

    Args:
        text: the file.
        findings: its keys of version 1.
        advice: lines that keep the behaviour of version 1 where it was another.
    """
    layout = _Layout(text)
    edits: dict[_Edit, None] = {}
    for one in advice:
        edits.update(dict.fromkeys(_advise(text, layout, one)))
    gone: dict[int, list[_Key]] = {}
    for finding in findings:
        key = layout.places.get(finding.place)
        if key is None:
            continue
        edits.update(dict.fromkeys(_edits(text, key, finding)))
        keys = gone.setdefault(id(key.mapping), [])
        if finding.effect in (Effect.IGNORED, Effect.DROPPED) and key not in keys:
            keys.append(key)
    for keys in gone.values():
        edits.update(dict.fromkeys(_nothing_left(text, keys)))
    return _apply(text, list(edits))


def _edits(text: str, key: _Key, finding: Finding) -> Iterator[_Edit]:
    row = finding.key
    match finding.effect:
        case Effect.REFUSED:
            yield _comment(text, key.start, f"TO DO: {finding.message}")
        case Effect.RENAMED:
            value = _new_value(key, finding)
            if value is None:
                return  # both names work, so it can stay
            yield _Edit(key.start, int(key.name.end_mark.index), row.name)
            yield from value
        case Effect.KEPT:
            if finding.message:
                yield _comment(text, key.start, finding.message)
            yield from _new_value(key, finding) or ()
        case Effect.IGNORED | Effect.DROPPED:
            said = finding.message or "empty or off, and not needed"
            if key.mapping.flow_style and not key.is_alias:
                said = f"{text[key.start : key.end]} ({said})"
            yield _comment(text, key.start, said)
            yield from _taken_out(text, key)


def _new_value(key: _Key, finding: Finding) -> Sequence[_Edit] | None:
    """How the value is spelt now; ``None`` if it is not written here."""
    word = str(key.value.value).strip().lower()
    new = finding.key.values.get(word)
    if new is None or not isinstance(key.value, yaml.ScalarNode):
        return ()
    if key.is_alias:
        return None
    return [_Edit(int(key.value.start_mark.index), int(key.value.end_mark.index), new)]


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def _indentation(text: str, index: int) -> str:
    """Spaces up to the column of a key, also after a dash."""
    return " " * (index - _line_start(text, index))


def _comment(text: str, index: int, said: str, *lines: str) -> _Edit:
    """Comment lines above the line of a key."""
    at = _line_start(text, index)
    indentation = _indentation(text, index)
    if not text[at:index].isspace() and index > at:  # behind a dash, or inside of { }
        indentation = " " * (len(text[at:index]) - len(text[at:index].lstrip()))
    wrapped = textwrap.wrap(
        said, _WIDTH - len(indentation) - 2, break_long_words=False, break_on_hyphens=False
    )
    return _Edit(at, at, "".join(f"{indentation}# {line}\n" for line in (*wrapped, *lines)))


def _taken_out(text: str, key: _Key) -> Iterator[_Edit]:
    start = _line_start(text, key.start)
    if not key.mapping.flow_style and not text[start : key.start].strip():
        end = key.end or _line_end(text, key.start)
        last = max(key.start, end - 1)
        stop = _line_end(text, last)
        lines = text[start:stop].split("\n")
        indentation = len(_indentation(text, key.start))
        yield _Edit(start, stop, "\n".join(_commented(line, indentation) for line in lines))
    elif key.following is not None:
        yield _Edit(key.start, int(key.following.start_mark.index), "")
    else:
        yield _Edit(key.preceding_end, _end_in_flow(text, key), _opening(key))


def _nothing_left(text: str, gone: Sequence[_Key]) -> Iterator[_Edit]:
    """An empty mapping in place of one whose keys are all comments now."""
    first = min(gone, key=lambda key: key.start, default=None)
    if first is None or first.mapping.flow_style or len(gone) < len(first.siblings):
        return
    start = _line_start(text, first.start)
    if not text[start : first.start].strip():
        yield _Edit(start, start, f"{text[start : first.start]}{{}}\n")


def _end_in_flow(text: str, key: _Key) -> int:
    return key.end or _line_end(text, key.start)


def _opening(key: _Key) -> str:
    """What is left of a mapping whose only, or last, key is taken out."""
    begins = int(key.mapping.start_mark.index)
    if key.preceding_end != begins:
        return ""
    return "{" if key.mapping.flow_style else "{}"


def _commented(line: str, indentation: int) -> str:
    if not line.strip():
        return line
    return f"{line[:indentation]}# {line[indentation:]}"


def _advise(text: str, layout: _Layout, advice: Advice) -> Iterator[_Edit]:
    inside = [
        key
        for place, key in layout.places.items()
        if place[:-1] == advice.place and key.mapping is layout.mappings.get(advice.place)
    ]
    own = layout.places.get(advice.place)
    behind_dash = [k for k in inside if text[_line_start(text, k.start) : k.start].strip()]
    chosen = [key for key in inside if not key.mapping.flow_style and key not in behind_dash]
    is_entry = bool(advice.place) and isinstance(advice.place[-1], int)
    choose = max if is_entry else min  # the first keys of an entry may move to behind the dash
    first = choose(chosen, key=lambda key: key.start, default=None) or own
    if first is None:
        first = min(inside, key=lambda key: key.start, default=None)
    if first is not None:
        said = f"{advice.text}; to keep the behaviour of version 1, add:"
        yield _comment(text, first.start, said, f"{advice.line}")


def _apply(text: str, edits: Sequence[_Edit]) -> str:
    """Make the edits from the end to the beginning; at one place, in their order."""
    taken_out = [edit for edit in edits if edit.end > edit.start]
    placed = [_before_what_goes(text, edit, taken_out) for edit in edits]
    merged: list[_Edit] = []
    for edit in sorted(placed, key=lambda edit: (edit.start, edit.end)):
        last = merged[-1] if merged else None
        both_go = last is not None and _takes_out(last) and _takes_out(edit)
        if last is not None and edit.start < last.end + both_go:  # neighbours inside of { }
            merged[-1] = _Edit(last.start, max(last.end, edit.end), last.text + edit.text)
        else:
            merged.append(edit)
    for edit in reversed(merged):
        before, after = text[: edit.start], text[edit.end :]
        if _takes_out(edit) and after.lstrip().startswith("}"):
            before = before.rstrip().removesuffix(",")
        text = before + edit.text + after
    return text


def _takes_out(edit: _Edit) -> bool:
    return edit.end > edit.start and not edit.text


def _before_what_goes(text: str, edit: _Edit, taken_out: Sequence[_Edit]) -> _Edit:
    """A comment within what is taken out, as behind a dash, goes above the line."""
    if edit.end > edit.start:
        return edit
    for other in taken_out:
        if other.start < edit.start < other.end:
            at = _line_start(text, other.start)
            return _before_what_goes(text, replace(edit, start=at, end=at), taken_out)
    return edit
