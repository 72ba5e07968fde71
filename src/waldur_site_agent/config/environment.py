"""The file ``environment`` beside the configuration: variables as systemd's units read them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENVIRONMENT_FILE = "environment"
_ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def with_environment_file(environ: Mapping[str, str], file: Path) -> dict[str, str]:
    """The variables of the process, and those of the file where the process has none.

    So a command that is typed by hand finds the same token as a unit with ``EnvironmentFile=``.

    Raises:
        OSError, UnicodeDecodeError: the file is there and cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return dict(environ)
    return {**assignments(text), **{name: value for name, value in environ.items() if value}}


def assignments(text: str) -> dict[str, str]:
    """The variables of an environment file: ``NAME=value``, the value in quotes or not."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.fullmatch(line)
        if match:
            name, value = match[1], match[2].strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name] = value[1:-1] if quoted else value
    return found
