"""``migrate``: prints a file from version 1 in the present spelling."""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from waldur_site_agent.backends.plugins import PluginError, Registry
from waldur_site_agent.cli.output import say
from waldur_site_agent.cli.start import DONE, FAILED, config_option, give_up
from waldur_site_agent.config import ConfigurationError, Job, Problem, Source
from waldur_site_agent.config.loading import (
    is_of_version_1,
    old_defaults,
    read_as_present,
)
from waldur_site_agent.config.migration import Advice, migrated
from waldur_site_agent.config.source import Place, read_source
from waldur_site_agent.config.switching import Effect, Finding, is_empty, refused
from waldur_site_agent.config.version_1 import BACKEND_TYPE_NOT_NEEDED


@dataclass(frozen=True, slots=True)
class _Old:
    """A file, and what of it is from version 1."""

    source: Source
    content: dict[str, Any]
    """In the present spelling, ``backend_settings`` included."""
    findings: list[Finding]
    advice: list[Advice]


@click.command("migrate")
@config_option
def migrate_command(config_file: Path) -> None:
    """Print a configuration file of version 1 in the present spelling; change nothing.

    Comments, order and anchors stay. What differs from version 1 stands in comments beside the
    keys, and so do the lines that would keep its behaviour.

    Exit codes: 0 done, 1 some keys are not supported (they are marked TO DO), 2 unreadable.
    """
    try:
        old = _read(config_file)
        text = migrated(config_file.read_text(encoding="utf-8"), old.findings, old.advice)
        _require_same_meaning(old, text)
    except ConfigurationError as error:
        give_up(str(error))
    sys.stdout.write(text)  # the file as it is, not made printable
    problems = refused(old.findings, old.source)
    if problems:
        say(str(ConfigurationError(config_file, dict.fromkeys(problems))), err=True)
    sys.exit(FAILED if problems else DONE)


def _read(path: Path) -> _Old:
    """Read a file and rewrite its content.

    Raises:
        ConfigurationError: it cannot be read.
    """
    source = read_source(path)
    findings = read_as_present(source)
    advice = [
        Advice(place, default.text, default.line)
        for place, default in (old_defaults(source) if _has_entries(source) else ())
    ]
    content = copy.deepcopy(source.content)
    for number, entry in _entries(source):
        written = entry.get("backend_settings")
        for name in _backends(entry):
            if not isinstance(written, dict):
                continue
            try:
                given, found = Registry().translated(name, written, source, number)
                defaults = Registry().backend_class(name).Settings.version_1_defaults
            except PluginError:
                continue  # config check says what to do about it
            findings += found
            place = ("offerings", number, "backend_settings")
            if is_of_version_1(source, number):
                advice += [
                    Advice(place, default.text, default.line)
                    for default in defaults
                    if default.key not in given
                ]
            offerings: Any = content["offerings"]
            offerings[number]["backend_settings"] = given
    findings += _types_not_needed(source)
    return _Old(source, content, findings, advice)


def _has_entries(source: Source) -> bool:
    return isinstance(source.content.get("offerings"), list)


def _entries(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    entries: Any = source.content.get("offerings")
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield number, entry


def _backends(entry: dict[str, Any]) -> list[str]:
    jobs = [job.value for job in Job]
    keys = jobs if any(key in entry for key in jobs) else ["backend_type"]
    return list(dict.fromkeys(str(entry[key]).strip() for key in keys if entry.get(key)))


def _types_not_needed(source: Source) -> list[Finding]:
    """``backend_type`` of every entry, if each entry that has it names its backends."""
    jobs = [job.value for job in Job]
    typed = [(number, entry) for number, entry in _entries(source) if "backend_type" in entry]
    if not all(any(key in entry for key in jobs) for _, entry in typed):
        return []
    said = BACKEND_TYPE_NOT_NEEDED
    return [
        Finding(("offerings", number, "backend_type"), said, Effect.IGNORED, said.text)
        for number, _ in typed
    ]


def _require_same_meaning(old: _Old, text: str) -> None:
    """Read the new text and compare.

    Raises:
        ConfigurationError: the new text would not say the same.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "config.yaml"
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
        try:
            new = _read(file)
        except ConfigurationError:
            new = None
    if new is None or _comparable(new.content) != _comparable(old.content):
        said = (
            "cannot be rewritten without changing what it says; it works as it is, and config "
            "check names the keys"
        )
        raise ConfigurationError(old.source.path, [Problem(None, (), said)])


def _comparable(content: Any, place: Place = ()) -> Any:
    """The content without what is empty, and without ``backend_type``."""
    if isinstance(content, list):
        return [_comparable(item, (*place, number)) for number, item in enumerate(content)]
    if not isinstance(content, dict):
        return content
    found = {key: _comparable(value, (*place, key)) for key, value in content.items()}
    is_entry = place[:1] == ("offerings",) and len(place) == len(("offerings", 0))
    return {
        key: value
        for key, value in found.items()
        if not is_empty(value) and not (is_entry and key == "backend_type")
    }
