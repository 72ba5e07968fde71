"""Configuration errors as an administrator wants to read them: file, line, key, found, accepted."""

from __future__ import annotations

import difflib
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from waldur_site_agent.config.secrecy import sounds_secret, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydantic import ValidationError

    from waldur_site_agent.config.source import Place, Source

_LONGEST_FOUND = 60
_CONTAINERS = ("a mapping", "a list")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    line: int | None
    place: Place
    message: str


class ConfigurationError(Exception):
    """The configuration cannot be used; every problem is listed, not only the first."""

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


def problems_of(
    error: ValidationError, source: Source, model: type[BaseModel], at: Place = ()
) -> list[Problem]:
    """Translate what the models found into problems of the file.

    Args:
        error: what validation of the value at ``at`` raised.
        source: the file, for lines and for what was found.
        model: the model that was validated, for the known keys.
        at: the place of the validated value in the file.
    """
    return [
        _problem(details, source, model, at)
        for details in error.errors(include_url=False, include_input=False)
    ]


def _problem(details: Any, source: Source, model: type[BaseModel], at: Place) -> Problem:
    inner: Place = tuple(details["loc"])
    place = (*at, *inner)
    found = _found(source, place)
    match details["type"]:
        case "extra_forbidden":
            # its value is never shown: the key may be a secret's, misspelt
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
    value: Any = source.content
    for step in place:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return "nothing"
    if sounds_secret(step for step in place if isinstance(step, str)):
        return "a value that is not shown because it may be secret"
    if isinstance(value, dict):
        return _CONTAINERS[0]
    if isinstance(value, list):
        return _CONTAINERS[1]
    if value is None:
        return "nothing"
    text = without_secrets(str(value))
    return f'"{text if len(text) <= _LONGEST_FOUND else text[:_LONGEST_FOUND] + "..."}"'


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
