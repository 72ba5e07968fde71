"""What the commands print: the only place that writes to the terminal."""

from __future__ import annotations

import json

import click

from waldur_site_agent.model.text import printable

_LINE_BREAK = "\n"


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text of one or more lines; whatever else is not printable in it is escaped."""
    click.echo(printable(text, keep=_LINE_BREAK), err=err, nl=nl)


def say_verdict(word: str, colour: str, text: str) -> None:
    """Print a word, coloured on a terminal, and a text as :func:`say` does."""
    click.echo(f"  {click.style(printable(word), fg=colour)} {printable(text, keep=_LINE_BREAK)}")


def clear_terminal() -> None:
    """Begin again at the top of an empty terminal."""
    click.echo("\x1b[H\x1b[2J", nl=False)


def on_one_line(text: str) -> str:
    """The text with line breaks and control characters replaced by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def json_text(value: object) -> str:
    """An indented JSON document in ASCII, which no terminal and no encoding can misread."""
    return json.dumps(value, indent=2)
