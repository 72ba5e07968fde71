"""``usage``: compares usage with Waldur, plots it, and reports past months."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import click

from waldur_site_agent.cli.output import json_text, on_one_line, say
from waldur_site_agent.cli.plan import amount_text
from waldur_site_agent.cli.start import (
    DONE,
    FAILED,
    Start,
    config_option,
    each_offering,
    give_up,
    load_or_exit,
    offering_option,
    output_option,
    runtime_or_exit,
)
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.cycles.usage_history import (
    UsageSelection,
    compare_months,
    days_of,
    gather_usage_selection,
    load_months,
    usage_series,
)
from waldur_site_agent.cycles.usage_sending import MonthOutcome
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.text import printable
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.planning.usage import ComponentReport, MonthPlan
from waldur_site_agent.service.session import REPORT, open_site

_TEXT_COLUMNS = 4
_LOWER = "lower than in Waldur"
_HEADING = (
    "offering",
    "month",
    "account",
    "resource",
    "uuid",
    "component",
    "unit",
    "used",
    "in_waldur",
    "difference",
    "anomaly",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Usage of one offering's resources compared with Waldur's figures."""

    offering: str
    plans: Sequence[MonthPlan]
    components: Mapping[str, Component]


def comparison_table(plans: Iterable[MonthPlan], components: Mapping[str, Component]) -> str:
    """Usage compared with Waldur's figures, one line per resource and component."""
    head = ("MONTH", "ACCOUNT", "RESOURCE", "COMPONENT", "USED", "IN WALDUR", "DIFFERENCE", "")
    rows = [
        (
            str(plan.month),
            resource.account,
            resource.resource.name,
            f"{component.type} ({components[component.type].measured_unit})",
            amount_text(component.bill.total),
            amount_text(component.before),
            _signed(_difference(component)),
            _LOWER if component.is_anomaly else "",
        )
        for plan in plans
        for resource in plan.resources
        for component in resource.components
    ]
    return _table(head, rows) if rows else "No resources."


def loaded_table(outcomes: Iterable[MonthOutcome], *, dry_run: bool) -> str:
    """What was sent, or would be, one line per component that changed."""
    head = ("MONTH", "ACCOUNT", "RESOURCE", "COMPONENT", "BEFORE", "AFTER", "")
    rows = [
        (
            str(outcome.plan.month),
            resource.account,
            resource.resource.name,
            component.type,
            amount_text(component.before),
            amount_text(component.bill.total),
            _outcome(
                component, dry_run=dry_run, sent=outcome.has_sent(resource.account, component.type)
            ),
        )
        for outcome in outcomes
        for resource in outcome.plan.resources
        for component in resource.components
        if component.is_changed or component.is_anomaly
    ]
    return _table(head, rows) if rows else "Waldur is up to date."


def as_json(comparisons: Iterable[Comparison]) -> str:
    """One entry per resource and component, with the columns of the CSV and usage per user."""
    entries = [
        {**dict(zip(_HEADING, values, strict=True)), "users": _users(component)}
        for values, component in _rows(comparisons)
    ]
    return json_text(entries)


def as_csv(comparisons: Iterable[Comparison]) -> str:
    """One line per offering, resource and component, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADING)
    for values, _ in _rows(comparisons):
        *names, used, in_waldur, difference, anomaly = values
        amounts = (used, in_waldur or "", difference, anomaly)
        writer.writerow([*(_no_formula(name or "") for name in names), *amounts])
    return text.getvalue()


def _rows(
    comparisons: Iterable[Comparison],
) -> Iterator[tuple[tuple[str | None, ...], ComponentReport]]:
    """The rows below the header; amounts are text, to stay exact."""
    for comparison in comparisons:
        for plan in comparison.plans:
            for resource in plan.resources:
                for component in resource.components:
                    yield (
                        (
                            comparison.offering,
                            str(plan.month),
                            resource.account,
                            resource.resource.name,
                            str(resource.resource.uuid),
                            component.type,
                            comparison.components[component.type].measured_unit,
                            amount_text(component.bill.total),
                            None if component.before is None else amount_text(component.before),
                            amount_text(_difference(component)),
                            _LOWER if component.is_anomaly else "",
                        ),
                        component,
                    )


def _users(component: ComponentReport) -> dict[str, str]:
    return {name: amount_text(part) for name, part in component.bill.user_usages.items()}


def _no_formula(text: str) -> str:
    """Escape text that a spreadsheet would take for a formula, and what is not printable."""
    begins = unicodedata.normalize("NFKC", text.lstrip())[:1]
    return f"'{printable(text)}" if begins in tuple("=+-@") else printable(text)


def _difference(component: ComponentReport) -> Decimal:
    return component.bill.total - (component.before or 0)


def _signed(amount: Decimal) -> str:
    return f"{amount:+.2f}" if amount else "-"


def _outcome(component: ComponentReport, *, dry_run: bool, sent: bool) -> str:
    if component.is_anomaly:
        return f"not sent: {_LOWER}"
    if dry_run:
        return "would be sent"
    return "sent" if sent else "not sent"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with text left-aligned, amounts right-aligned and the last column unpadded."""
    cells = [[on_one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        columns = [
            cell.ljust(width) if number < _TEXT_COLUMNS else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row[:-1], widths, strict=False))
        ]
        lines.append("  ".join([*columns, row[-1]]).rstrip())
    return "\n".join(lines)


class MonthType(click.ParamType[BillingMonth]):
    """``2026-10`` on the command line."""

    name = "YYYY-MM"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> BillingMonth:
        """Parse the month; invalid text is a usage error."""
        if isinstance(value, BillingMonth):
            return value
        try:
            return BillingMonth.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_MONTH = MonthType()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The options of ``usage show``."""

    months: tuple[BillingMonth, BillingMonth] | None
    """The first and last month; ``None`` for the current month."""
    resources: tuple[str, ...] = ()
    output: str = "text"
    plot: Path | None = None


@click.group("usage")
def usage_group() -> None:
    """Show usage next to Waldur's figures; report past months."""


@usage_group.command("show")
@config_option
@offering_option
@click.option("--month", type=_MONTH, help="The month to show; by default the current one.")
@click.option("--from", "first", type=_MONTH, help="First month of a range.")
@click.option("--to", "last", type=_MONTH, help="Last month of a range; requires --from.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME",
    help="Only this resource, by account, name or UUID; repeatable.",
)
@output_option("text", "json", "csv")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg|png",
    help="Plot usage per day, or per month of a range; one file per offering.",
)
def show_command(
    config_file: Path,
    offerings: tuple[str, ...],
    month: BillingMonth | None,
    first: BillingMonth | None,
    last: BillingMonth | None,
    resources: tuple[str, ...],
    output: str,
    plot: Path | None,
) -> None:
    """Print the usage that would be reported next to Waldur's figures; send nothing."""
    if month and (first or last):
        give_up("use either --month, or --from and --to")
    if plot:
        _check_plot(plot)
    months = (month, month) if month else _range(first, last) if first or last else None
    look = Look(months=months, resources=resources, output=output, plot=plot)
    sys.exit(
        _show(load_or_exit(config_file, wanted=offerings, jobs=[REPORT.job], quiet=True), look)
    )


@usage_group.command("load")
@config_option
@offering_option
@click.option("--from", "first", type=_MONTH, required=True, help="First month.")
@click.option("--to", "last", type=_MONTH, required=True, help="Last month.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
def load_command(
    config_file: Path,
    offerings: tuple[str, ...],
    first: BillingMonth,
    last: BillingMonth,
    dry_run: bool,
) -> None:
    """Report past months to Waldur, one after the other.

    Figures that Waldur has already are not sent again, so an interrupted run can be repeated. Past
    months require a staff token if components are billed by usage.
    """
    span = _range(first, last)
    start = load_or_exit(config_file, wanted=offerings, jobs=[REPORT.job], quiet=True)
    sys.exit(load_usage(start, span, (), dry_run=dry_run))


def load_usage(
    start: Start,
    span: tuple[BillingMonth, BillingMonth],
    resources: Sequence[str],
    *,
    dry_run: bool,
) -> int:
    """Report the months from the first to the last; return the exit code.

    Args:
        start: the configuration and the offerings asked for.
        span: the first and the last month.
        resources: accounts, names or UUIDs; all resources if empty.
        dry_run: only print what would be sent.
    """
    first, last = _range(*span)
    months = tuple(_months(first, last))

    def load(site: Site) -> int:
        _refuse_future(site, last)
        figures = gather_usage_selection(site).only(resources)
        outcomes = _planned(site, figures, months) if dry_run else _loaded(site, figures, months)
        say(loaded_table(outcomes, dry_run=dry_run))
        return _conclude(figures, outcomes)

    return _at_each_site(start, load, sends=not dry_run)


def _show(start: Start, look: Look) -> int:
    comparisons: list[Comparison] = []
    sought = {name.strip().lower() for name in look.resources}
    files = _plot_files(look.plot, _served(start)) if look.plot else {}

    def show(site: Site) -> int:
        first, last = look.months or (BillingMonth.of(site.now(), site.zone),) * 2
        _refuse_future(site, last)
        everything = gather_usage_selection(site)
        figures = everything.only(look.resources)
        sought.difference_update(figures.names())
        if look.resources and not figures.resources:
            return DONE  # it may belong to another offering
        months = tuple(_months(first, last))
        plans, components = compare_months(site, figures, months), figures.components
        comparisons.append(
            Comparison(offering=site.offering.name, plans=plans, components=components)
        )
        if look.output == "text":
            say(f"{site.offering.name}:")
            say(comparison_table(plans, components))
        if files:
            _plot(site, figures, months, files[site.offering.name])
        return _conclude(figures, [])

    code = _at_each_site(start, show, titles=False)
    if sought and code == DONE and not comparisons:
        give_up(f"there is no resource called {' or '.join(sorted(sought))}")
    for name in sorted(sought):
        say(f"! there is no resource called {name}", err=True)
    if look.output == "json":
        say(as_json(comparisons))
    elif look.output == "csv":
        say(as_csv(comparisons), nl=False)
    return FAILED if sought else code


def _plot_files(file: Path, offerings: Sequence[Offering]) -> dict[str, Path]:
    """The plot file of each offering; with several offerings, its name is added to the file name.

    Names that differ only in characters unfit for file names get a number.
    """
    if len(offerings) == 1:
        return {offerings[0].name: file}
    files: dict[str, Path] = {}
    for number, offering in enumerate(offerings, start=1):
        word = re.sub(r"[^a-z0-9]+", "-", offering.name.lower()).strip("-") or str(number)
        path = file.with_stem(f"{file.stem}-{word}")
        if path in files.values():
            path = file.with_stem(f"{file.stem}-{word}-{number}")
        files[offering.name] = path
    return files


def _plot(site: Site, figures: UsageSelection, months: Sequence[BillingMonth], file: Path) -> None:
    from waldur_site_agent.cli import usage_plot  # noqa: PLC0415 - needs the extra plot

    one = len(months) == 1
    periods = days_of(months[0], site) if one else [m.period(site.zone) for m in months]
    labels = [str(p.start.day) for p in periods] if one else [str(m) for m in months]
    span = str(months[0]) if one else f"{months[0]} to {months[-1]}"
    series = usage_series(site, figures, periods)
    try:
        usage_plot.draw(
            file,
            series,
            figures.components,
            title=f"{site.offering.name}, {span}",
            labels=labels,
            unit_of_time="day" if one else "month",
        )
    except OSError as error:
        raise PermanentError(f"--plot {file}: cannot be written: {error.strerror}") from None
    used = any(any(each.amounts) for each in series)
    say(f"drawn: {file}" + ("" if used else " (empty: no usage)"), err=True)


def _check_plot(file: Path) -> None:
    if file.suffix not in (".svg", ".png"):
        give_up(f"--plot {file}: the name must end in .svg or .png")
    if not file.parent.is_dir():
        give_up(f"--plot {file}: no such directory: {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        give_up(f"--plot {file}: not writable")
    try:
        from waldur_site_agent.cli import usage_plot  # noqa: F401, PLC0415 - is the extra there?
    except ImportError as error:
        give_up(f'--plot needs matplotlib ({error}): pip install "waldur-site-agent[plot]"')


def _planned(
    site: Site, figures: UsageSelection, months: Sequence[BillingMonth]
) -> list[MonthOutcome]:
    return [MonthOutcome(plan=plan) for plan in compare_months(site, figures, months)]


def _loaded(
    site: Site, figures: UsageSelection, months: Sequence[BillingMonth]
) -> list[MonthOutcome]:
    """Load with a progress bar on a terminal; after an error, print what was sent before it."""
    outcomes: list[MonthOutcome] = []
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=len(months), file=sys.stderr, hidden=hidden) as bar:
        try:
            for outcome in load_months(site, figures, months):
                outcomes.append(outcome)
                bar.update(1)
        except SiteAgentError as error:
            say(loaded_table(outcomes, dry_run=False))
            raise error from None
    return outcomes


def _conclude(figures: UsageSelection, outcomes: Iterable[MonthOutcome]) -> int:
    lines = list(figures.troubles)
    for outcome in outcomes:
        month = outcome.plan.month
        lines += [
            f"{account} in {month}: {each.type} {each.bill.total} is lower than {each.before} in "
            "Waldur; not sent"
            for account, each in outcome.plan.anomalies
        ]
        lines += [f"{f.account} in {month}: {f.error}" for f in outcome.failures]
        if outcome.rejected_reason:
            lines.append(
                f"{month}: Waldur does not accept it with this token; use a staff token: "
                f"{outcome.rejected_reason}"
            )
        if outcome.deferred_reason:
            lines.append(f"{month}: {outcome.deferred_reason}")
    for line in lines:
        say(f"! {line}", err=True)
    return FAILED if lines else DONE


def _served(start: Start) -> list[Offering]:
    served = [offering for offering in start.offerings if REPORT.serves(offering)]
    if not served:
        give_up(f"no offering of {start.source.path} has a {REPORT.job.value}")
    return served


def _at_each_site(
    start: Start, work: Callable[[Site], int], *, titles: bool = True, sends: bool = False
) -> int:
    runtime = runtime_or_exit(start, dry_run=not sends)

    def one(offering: Offering) -> int:
        with open_site(runtime, offering, REPORT, lambda: False) as site:
            return work(site)

    return each_offering(start, one, offerings=_served(start), titles=titles, errors_below=False)


def _refuse_future(site: Site, last: BillingMonth) -> None:
    current = BillingMonth.of(site.now(), site.zone)
    if last > current:
        give_up(f"{last} is in the future; the current month is {current}")


def _range(
    first: BillingMonth | None, last: BillingMonth | None
) -> tuple[BillingMonth, BillingMonth]:
    if first is None or last is None:
        give_up("--from and --to must be used together")
    if last < first:
        give_up(f"the first month, {first}, is later than the last, {last}")
    return first, last


def _months(first: BillingMonth, last: BillingMonth) -> Iterator[BillingMonth]:
    month = first
    while month <= last:
        yield month
        month = month.next
