"""The container file, as far as it can be checked where there is no container engine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from waldur_site_agent import __version__
from waldur_site_agent.cli.main import main

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "container" / "Containerfile"


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the file, in order, with its arguments."""
    lines = [
        line for line in FILE.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
    ]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last(word: str) -> str:
    """The arguments of the last instruction of this kind: the one that counts."""
    return [rest for found, rest in instructions() if found == word][-1]


def test_the_container_does_not_run_as_root() -> None:
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert f"--uid {user} " in "".join(rest for word, rest in instructions() if word == "RUN")
    after = [word for word, _ in instructions()][::-1]
    assert "RUN" not in after[: after.index("USER")]


def test_the_container_starts_a_command_that_exists() -> None:
    program, arguments = json.loads(last("ENTRYPOINT")), json.loads(last("CMD"))
    assert program == ["/opt/waldur-site-agent/bin/waldur-site-agent"]
    run = main.commands[arguments[0]]
    parser = run.make_parser(click.Context(run))
    _, left, _ = parser.parse_args(arguments[1:])
    assert left == []


def test_the_container_installs_from_the_wheels_with_extras_that_exist() -> None:
    (install,) = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert "--find-links /wheels" in install
    assert instructions()[1] == ("ARG", f"VERSION={__version__}")
    (extras,) = re.findall(r"waldur-site-agent\[([\w,]+)\]", install)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


@pytest.mark.parametrize("word", ["ADD", "EXPOSE", "VOLUME", "SHELL"])
def test_the_container_file_uses_nothing_that_fetches_or_opens_more(word: str) -> None:
    assert word not in {found for found, _ in instructions()}
