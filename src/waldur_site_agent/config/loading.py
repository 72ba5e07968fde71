"""Loads and checks the configuration file, and resolves its secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from waldur_site_agent.config.settings import ENVIRONMENT_FILE, Configuration, with_environment_file
from waldur_site_agent.config.source import (
    ConfigurationError,
    Place,
    Problem,
    Source,
    Value,
    problems_of,
    read_source,
    why_unreadable,
)
from waldur_site_agent.config.switching import (
    Finding,
    OldDefault,
    differing,
    ignored,
    refused,
    translate,
)
from waldur_site_agent.config.version_1 import (
    DEFAULTS_OF_FILE,
    DEFAULTS_OF_OFFERING,
    KEYS,
)

MALFORMED = (
    "is not shown here, but holds characters that no token has, such as a space inside it; copy it "
    "again from the profile of the agent's user in Waldur, without any prefix"
)
GLOBAL_PROXY = "global_proxy"
COORDINATION = "coordination"
OIDC_KEYS = ("oidc_token_url", "oidc_client_id", "oidc_client_secret")
_TOKEN_LIKE = re.compile(r"[0-9A-Za-z]{16,}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class BrokenOffering:
    """An invalid entry of ``offerings``; the others can be used."""

    name: str
    """The name in the file, or the entry's position if it has none."""
    uuid: str
    """``waldur_offering_uuid`` as in the file."""
    error: ConfigurationError
    """Every problem of the entry, each with its line."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The usable part of a file, and its invalid offerings."""

    configuration: Configuration
    """The file without its broken offerings."""
    source: Source
    broken: tuple[BrokenOffering, ...] = ()
    without_effect: tuple[Problem, ...] = ()
    """Keys that have no effect any more, each with the reason."""
    differences: tuple[Problem, ...] = ()
    """What a site that comes from version 1 may notice."""


CheckSettings: TypeAlias = Callable[[Source, int], Iterable[Problem]]
"""Checks ``backend_settings`` of the entry of ``offerings`` with this number."""


def load_configuration(
    path: Path, environ: Mapping[str, str] | None = None
) -> tuple[Configuration, Source]:
    """Read, resolve and check the file; the source is returned for later error messages.

    Raises:
        ConfigurationError: with every problem found, each with its line.
    """
    loaded = load_usable(path, environ)
    if loaded.broken:
        problems = [problem for entry in loaded.broken for problem in entry.error.problems]
        raise ConfigurationError(path, problems)
    return loaded.configuration, loaded.source


def load_usable(
    path: Path,
    environ: Mapping[str, str] | None = None,
    check_settings: CheckSettings | None = None,
) -> Loaded:
    """As :func:`load_configuration`, but skip invalid offerings.

    Args:
        path: the file.
        environ: the variables that the file may refer to.
        check_settings: makes the settings of backends part of every error, so that all problems
            of an entry are named at once.

    Raises:
        ConfigurationError: a problem concerns the file as a whole, or no offering is left.
    """
    source = read_source(path)
    findings = read_as_present(source)
    problems = refused(findings, source)
    known = os.environ if environ is None else environ
    problems += [*_resolve_proxy(source, known), *_resolve_coordination(source, known)]
    problems += _resolve_secrets(source, known)
    loaded = _validate(source, problems, check_settings or (lambda _source, _number: ()))
    return replace(
        loaded,
        without_effect=tuple(ignored(findings, source)),
        differences=tuple(_differences(findings, loaded.source)),
    )


def read_as_present(source: Source) -> list[Finding]:
    """Rewrite the content of a file from version 1; what concerns backends stays as it is.

    Keys at the top that begin with ``_`` or ``x-`` hold anchors, and are left out.
    """
    for name in list(source.content):
        if name.startswith(("_", "x-")):
            del source.content[name]
    return translate(source.content, KEYS, source=source)


def is_of_version_1(source: Source, number: int) -> bool:
    """Whether an entry of ``offerings`` was written for version 1, which requires this key."""
    entries: Any = source.content["offerings"]
    return isinstance(entries[number], dict) and "backend_type" in entries[number]


def _differences(findings: Iterable[Finding], source: Source) -> Iterator[Problem]:
    entries: Any = source.content["offerings"]
    old = {number for number, _ in enumerate(entries) if is_of_version_1(source, number)}
    for problem in differing(findings, source) if old else ():
        if _offering_of(problem) in {None, *old}:
            yield problem
    for place, default in old_defaults(source):
        yield default.remark(place, source)


def old_defaults(source: Source) -> Iterator[tuple[Place, OldDefault]]:
    """Where a file of version 1 relies on defaults that are others now, outside of backends."""
    entries: Any = source.content["offerings"]
    old = [number for number, _ in enumerate(entries) if is_of_version_1(source, number)]
    if old:
        yield from (((), each) for each in DEFAULTS_OF_FILE if each.key not in source.content)
    for number in old:
        for default in DEFAULTS_OF_OFFERING:
            if default.key not in entries[number]:
                yield ("offerings", number), default


def _validate(source: Source, problems: list[Problem], check_settings: CheckSettings) -> Loaded:
    content: dict[str, Any] = source.content
    configuration: Configuration | None = None
    try:
        configuration = Configuration.model_validate(content)
    except ValidationError as error:
        said = {problem.place for problem in problems}
        found = problems_of(error, source, Configuration)
        problems += [problem for problem in found if problem.place not in said]
    numbers = {_offering_of(problem) for problem in problems}
    if configuration is not None and not numbers:
        return Loaded(configuration, source)
    entries = content.get("offerings")
    everything = range(len(entries)) if isinstance(entries, list) else ()
    left = [number for number in everything if number not in numbers]
    is_lost = None in numbers or not left
    for number in everything if is_lost else sorted(n for n in numbers if n is not None):
        problems += check_settings(source, number)
    if is_lost:
        raise ConfigurationError(source.path, problems)
    usable = {**content, "offerings": [content["offerings"][number] for number in left]}
    try:
        configuration = Configuration.model_validate(usable)
    except ValidationError as error:  # checks that run only if every entry is well-formed
        raise ConfigurationError(
            source.path, [*problems, *problems_of(error, source, Configuration)]
        ) from None
    broken = tuple(
        _broken(source, number, [p for p in problems if _offering_of(p) == number])
        for number in sorted({number for number in numbers if number is not None})
    )
    return Loaded(configuration, source, broken)


def _offering_of(problem: Problem) -> int | None:
    """The index of the entry of ``offerings`` that the problem belongs to, if any."""
    match problem.place:
        case ("offerings", int(number), *_):
            return number
        case _:
            return None


def _broken(source: Source, number: int, problems: list[Problem]) -> BrokenOffering:
    content: dict[str, Any] = source.content
    entry = content["offerings"][number]
    named = entry if isinstance(entry, dict) else {}
    return BrokenOffering(
        name=str(named.get("name") or f"offerings[{number}]").strip(),
        uuid=str(named.get("waldur_offering_uuid") or "").strip(),
        error=ConfigurationError(source.path, problems),
    )


def _resolve_secrets(source: Source, environ: Mapping[str, str]) -> list[Problem]:
    """Replace variables and token files by the tokens."""
    offerings = source.content.get("offerings")
    if not isinstance(offerings, list):
        return []
    problems: list[Problem] = []
    for number, entry in enumerate(offerings):
        if not isinstance(entry, dict):
            continue
        for key, resolve in (("waldur_api_token", _login), ("oidc_client_secret", _client_secret)):
            try:
                entry[key] = resolve(entry, source.path, environ)
            except _Unresolved as unresolved:
                place: Place = ("offerings", number, unresolved.key)
                problems.append(Problem(source.line(place), place, str(unresolved)))
                entry[key] = ""
        problems += _resolve_budgets(source, number, entry.get("budgets"), environ)
    return problems


def _resolve_budgets(
    source: Source, number: int, budgets: Value, environ: Mapping[str, str]
) -> Iterator[Problem]:
    """Replace variables in the webhook of an offering's budgets and in its token."""
    if not isinstance(budgets, dict):
        return
    for key in ("webhook", "webhook_token"):
        text = budgets.get(key)
        if not isinstance(text, str):
            continue
        try:
            budgets[key] = _expand(key, text, source.path, environ)
        except _Unresolved as unresolved:
            place: Place = ("offerings", number, "budgets", key)
            budgets[key] = ""
            yield Problem(source.line(place), place, str(unresolved))


def _resolve_proxy(source: Source, environ: Mapping[str, str]) -> list[Problem]:
    """Replace variables in ``global_proxy``, such as that of its password."""
    proxy = source.content.get(GLOBAL_PROXY)
    if not isinstance(proxy, str):
        return []
    try:
        source.content[GLOBAL_PROXY] = _expand(GLOBAL_PROXY, proxy, source.path, environ)
    except _Unresolved as unresolved:
        place: Place = (GLOBAL_PROXY,)
        source.content[GLOBAL_PROXY] = ""
        return [Problem(source.line(place), place, str(unresolved))]
    return []


def _resolve_coordination(source: Source, environ: Mapping[str, str]) -> list[Problem]:
    """Replace variables in ``coordination``, or read the file that holds it."""
    try:
        url = _secret(source.content, COORDINATION, source.path, environ)
    except _Unresolved as unresolved:
        place: Place = (unresolved.key,)
        source.content[COORDINATION] = ""
        return [Problem(source.line(place), place, str(unresolved))]
    if url:
        source.content[COORDINATION] = url
    return []


class _Unresolved(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _login(entry: dict[str, Value], path: Path, environ: Mapping[str, str]) -> str:
    """The token; empty where the agent is to log in as a client of an identity provider."""
    token = _secret(entry, "waldur_api_token", path, environ)
    if not token and not any(entry.get(key) for key in OIDC_KEYS):
        raise _Unresolved(
            "waldur_api_token",
            "is missing; give waldur_api_token (a token or ${VARIABLE}) or waldur_api_token_file, "
            f"or else {', '.join(OIDC_KEYS)}",
        )
    return _well_formed(token)


def _client_secret(entry: dict[str, Value], path: Path, environ: Mapping[str, str]) -> str:
    return _secret(entry, "oidc_client_secret", path, environ)


def _well_formed(token: str) -> str:
    if not is_well_formed_token(token):
        raise _Unresolved("waldur_api_token", MALFORMED)
    return token


def looks_like_a_token(text: str) -> bool:
    """Whether a text in another place is probably a pasted token, which messages must not show."""
    return bool(_TOKEN_LIKE.fullmatch(text)) and any(c.isdigit() for c in text)


def is_well_formed_token(token: str) -> bool:
    """Whether the text can be sent in a header."""
    return token.isascii() and token.isprintable() and " " not in token


def _secret(entry: dict[str, Value], key: str, path: Path, environ: Mapping[str, str]) -> str:
    """A secret from its key, or from the file that ``<key>_file`` names; empty if none is set."""
    file_key = f"{key}_file"
    given, file = entry.get(key), entry.get(file_key)
    if isinstance(file, str) and file:
        if isinstance(given, str) and given:
            raise _Unresolved(key, f"stands beside {file_key}; keep one of them")
        return _from_file(file_key, path, _expand(file_key, file, path, environ))
    if not isinstance(given, str) or not given.strip():
        return ""
    return _expand(key, given, path, environ).strip()


def _from_file(key: str, path: Path, file: str) -> str:
    what = "token" if "token" in key else "URL" if key.startswith(COORDINATION) else "secret"
    try:
        secret = (path.parent / file).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        missing = f"{path.parent / file}: no such file; put the {what} into it"
        if looks_like_a_token(file):
            here = key.removesuffix("_file")
            missing = f"looks like a {what} (not shown); give it as {here}, or name its file"
        raise _Unresolved(key, missing) from None
    except (OSError, UnicodeDecodeError) as error:
        why = why_unreadable(path.parent / file, error)
        raise _Unresolved(key, f"{path.parent / file} {why}") from None
    if not secret:
        raise _Unresolved(key, f"{path.parent / file} is empty")
    return secret


def _expand(key: str, text: str, path: Path, environ: Mapping[str, str]) -> str:
    """Substitute variables from the process environment or the file ``environment``."""
    names = _VARIABLE.findall(text)
    if all(environ.get(name) for name in names):
        return _VARIABLE.sub(lambda match: environ[match[1]], text)
    file = path.parent / ENVIRONMENT_FILE
    try:
        known = with_environment_file(environ, file)
    except (OSError, UnicodeDecodeError) as error:
        why = why_unreadable(file, error)
        raise _Unresolved(key, f"the variable {names[0]} is not set, and {file} {why}") from None
    missing = [name for name in names if not known.get(name)]
    if missing and looks_like_a_token(missing[0]):
        raise _Unresolved(key, "is a token in ${} (not shown); write it without them")
    if missing:
        raise _Unresolved(
            key,
            f"the environment variable {missing[0]} is not set or empty; set it, or write "
            f"{missing[0]}=... into the file {file}",
        )
    return _VARIABLE.sub(lambda match: known[match[1]], text)
