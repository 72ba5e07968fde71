"""What every demo shares: its site, cycles of the agent, and how plans and clusters are printed."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import click
from pydantic import JsonValue

from waldur_site_agent.backends import Backend, BackendResource, BackendState
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE
from waldur_site_agent.backends.plugins import Registry
from waldur_site_agent.cli.plan import report_text, step_changes, step_json
from waldur_site_agent.cli.start import DONE, FAILED
from waldur_site_agent.config import load_configuration
from waldur_site_agent.cycles.membership import MembershipReport
from waldur_site_agent.cycles.order_inputs import OrdersReport
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.service.logs import configure_logs
from waldur_site_agent.service.session import Mode, Runtime
from waldur_site_agent.service.worker import once
from waldur_site_agent_sandbox import Sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The backend of a demo, and how the agent is configured for it."""

    backend: str
    """The name of its plugin."""
    title: str
    """The name of its commands, for people."""
    offering: str
    """The name of its offering in the configuration."""
    simulated: type[Backend] | None
    """The plugin on a simulator; ``None`` for a real cluster."""
    settings: dict[str, JsonValue]
    components: dict[str, JsonValue]


class Stage:
    """The sandbox, a cluster and the agent between them, shown cycle by cycle."""

    def __init__(self, sandbox: Sandbox, url: str, cluster: Cluster, directory: Path) -> None:
        self.sandbox = sandbox
        self.url = url
        self.failed = False
        self.runtime = _runtime(sandbox, url, cluster, directory)
        self._cluster = cluster
        self._offering = self.runtime.configuration.offerings[0]
        self._components = self._offering.components

    def cycle(self, mode: Mode, *, dry_run: bool = False, quiet: bool = False) -> None:
        """Run one cycle of the agent, and print the result and the number of calls it took."""
        self.sandbox.requests.clear()
        report = once(self.runtime, self._offering, mode, dry_run=dry_run)[0]
        self.failed |= report.failed
        if quiet:
            return
        if dry_run:
            print_plan(report_text(report), self._components)
            return
        requests = self.sandbox.requests.count()
        took = f"{requests} requests to Waldur, {report.commands} {self._cluster.title} commands"
        print_plan("\n".join([*_done(report), took]), self._components)

    def account(self, name: str) -> BackendResource:
        """Give an account as the backend reads it."""
        return self._observe().resources[name]

    def print_tree(self) -> None:
        """Print the cluster's accounts as the backend reads them."""
        click.echo(tree_text(self._observe(), self._components, self._cluster.title))

    def _observe(self) -> BackendState:
        registry, backend = self.runtime.registry, self._cluster.backend
        settings = registry.settings(backend, self._offering, None)
        return registry.open(backend, settings, self._offering).observe()


def show(cluster: Cluster, play: Callable[[Stage], None], *, keep: bool) -> int:
    """Play a demo from beginning to end; return the exit code."""
    configure_logs("warning", "console")
    sandbox = Sandbox()
    with sandbox.serve() as url, tempfile.TemporaryDirectory() as directory:
        os.environ[DIRECTORY_VARIABLE] = directory
        stage = Stage(sandbox, url, cluster, Path(directory))
        play(stage)
        _print_what_is_next()
        if keep:
            click.pause(f"\nThe sandbox stays at {url} until you press a key.")
    return FAILED if stage.failed else DONE


def _runtime(sandbox: Sandbox, url: str, cluster: Cluster, directory: Path) -> Runtime:
    (directory / "token").write_text(sandbox.token, encoding="utf-8")
    offering = {
        "name": cluster.offering,
        "waldur_api_url": url,
        "waldur_api_token_file": "token",
        "waldur_offering_uuid": sandbox.offering.uuid,
        "order_processing_backend": cluster.backend,
        "membership_sync_backend": cluster.backend,
        "reporting_backend": cluster.backend,
        "backend_settings": {**cluster.settings, "lock_file": str(directory / "writer.lock")},
        "backend_components": cluster.components,
    }
    path = directory / "waldur-site-agent-config.yaml"
    # JSON is YAML, too.
    path.write_text(json.dumps({"timezone": "UTC", "offerings": [offering]}), encoding="utf-8")
    configuration, source = load_configuration(path)
    registry = Registry({cluster.backend: cluster.simulated} if cluster.simulated else None)
    return Runtime(configuration=configuration, source=source, registry=registry)


def _done(report: CycleReport) -> list[str]:
    match report:
        case OrdersReport(results=results):
            lines = [
                f"{f.order.type} order of {f.order.resource_name}: {f.status.value} {f.reason}"
                for f in results
            ]
            return [line.rstrip() for line in lines] or ["No orders."]
        case MembershipReport(membership=membership):
            changes = [c for step in membership.plan.steps for c in step_changes(step_json(step))]
            return [f"{sign} {subject}" for sign, subject, _ in changes] or ["No changes."]
        case UsageCycleReport(months=months):
            reported = [
                f"{resource.account} in {month.plan.month}: "
                + ", ".join(f"{kind} {amount}" for kind, amount in resource.totals.items())
                for month in months
                for resource in month.plan.resources
                if resource.account in month.reported
            ]
            return reported or ["Nothing new to report."]
        case _:
            return [report.trouble]


_COLOURS = {"+": "green", "-": "red", "~": "yellow", "!": "red"}
_LIMIT_CHANGE = re.compile(r"(\S+) (none|\d[\d.]*) -> (\d[\d.]*)")
_USUAL_QOS = (None, "", "normal")


def print_title(text: str) -> None:
    """Print a heading after an empty line."""
    click.echo()
    click.secho(text, bold=True)


def print_plan(text: str, components: Mapping[str, Component]) -> None:
    """Print a plan or its result: changes in colour, limits also in the units that are sold."""
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
    """Convert an amount of backend units to the unit that Waldur sells."""
    measured = (amount / component.unit_factor).quantize(Decimal("0.01"))
    text = f"{measured:f}".rstrip("0").rstrip(".")
    return f"{text} {component.measured_unit}"


def tree_text(state: BackendState, components: Mapping[str, Component], title: str) -> str:
    """Draw the accounts below root with their members and limits, under a heading."""
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


def _print_what_is_next() -> None:
    """Say where to go from here."""
    print_title("What next?")
    click.echo(
        """\
  Try it by hand, without a cluster:   docs/start.md, or
      waldur-site-agent sandbox --demo
  Set it up at your site:              waldur-site-agent init
  See what each command does:          waldur-site-agent --help"""
    )
