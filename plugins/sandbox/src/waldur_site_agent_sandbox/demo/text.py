"""How the demo shows a plan, a cluster and what is next: colours, human units, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

import click

from waldur_site_agent.backends import BackendState
from waldur_site_agent.model.marketplace import Component

_COLOURS = {"+": "green", "-": "red", "~": "yellow", "!": "red"}
_LIMIT_CHANGE = re.compile(r"(\S+) (none|\d[\d.]*) -> (\d[\d.]*)")
_USUAL_QOS = (None, "", "normal")


def print_title(text: str) -> None:
    """A heading, after an empty line."""
    click.echo()
    click.secho(text, bold=True)


def print_plan(text: str, components: Mapping[str, Component]) -> None:
    """A plan, or what became of it: changes in colour, limits in the units that are sold, too."""
    for line in text.splitlines():
        sign = line.strip()[:1]
        shown = _LIMIT_CHANGE.sub(lambda m: _with_units(m, components), line)
        click.secho(shown, fg=_COLOURS.get(sign) if line.strip()[1:2] == " " else None)


def _with_units(match: re.Match[str], components: Mapping[str, Component]) -> str:
    component = components.get(match[1])
    if component is None or component.unit_factor == 1 or "." in match[3]:
        return match[0]
    return f"{match[0]} ({_sold(Decimal(match[3]), component)})"


def _sold(amount: Decimal, component: Component) -> str:
    """An amount of backend units in the unit that Waldur sells."""
    measured = (amount / component.unit_factor).quantize(Decimal("0.01"))
    text = f"{measured:f}".rstrip("0").rstrip(".")
    return f"{text} {component.measured_unit}"


def tree_text(state: BackendState, components: Mapping[str, Component], title: str) -> str:
    """The accounts below root, with their members and limits, under a heading."""
    branches = list(_branches(state, components, "root", ""))
    units = "TRES-minutes" if title == "Slurm" else "the backend's units"
    heading = f"Accounts in {title}, limits in {units} (as sold in Waldur):"
    if not branches:
        return f"Accounts in {title}:\nroot  (nothing below it yet)"
    return "\n".join([heading, "root", *branches])


def _branches(
    state: BackendState, components: Mapping[str, Component], parent: str, indent: str
) -> Iterator[str]:
    children = state.children(parent)
    for name in children:
        last = name == children[-1]
        found = state.resources[name]
        below = f"{indent}{'   ' if last else '│  '}"
        members = ", ".join(sorted(found.members))
        details = [f"members {members}"] if members else []
        details += [f"QOS {qos}"] if (qos := found.metadata.get("qos")) not in _USUAL_QOS else []
        yield f"{indent}{'└─ ' if last else '├─ '}{name}  {'  '.join(details)}".rstrip()
        if found.limits:
            limits = (_limit(*item, components) for item in sorted(found.limits.items()))
            yield f"{below}  {'  '.join(limits)}"
        yield from _branches(state, components, name, below)


def _limit(name: str, amount: Decimal, components: Mapping[str, Component]) -> str:
    component = components.get(name)
    sold = f" ({_sold(amount, component)})" if component else ""
    return f"{name}={amount:f}{sold}"


def print_what_is_next() -> None:
    """Where somebody goes who has seen the demo."""
    print_title("What next?")
    click.echo(
        """\
  Try it by hand, without a cluster:   docs/start.md, or
      waldur-site-agent sandbox --demo
  Set it up at your site:              waldur-site-agent init
  See what each command does:          waldur-site-agent --help"""
    )
