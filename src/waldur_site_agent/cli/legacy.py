"""Commands of version 1 that have no exact counterpart, for the scripts and probes of sites."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from waldur_site_agent.cli.explain import explanation_json, explanation_lines, explanations
from waldur_site_agent.cli.output import json_text, on_one_line, say
from waldur_site_agent.cli.start import (
    DONE,
    FAILED,
    UNUSABLE,
    Start,
    each_offering,
    give_up,
    load_or_exit,
    of_nobody_else,
    runtime_of,
)
from waldur_site_agent.cli.usage import load_usage
from waldur_site_agent.config import Configuration, Offering
from waldur_site_agent.cycles.account_check import AccountCheck, check_account
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.service.health import default_health_file, files_of, read_health
from waldur_site_agent.service.logs import redact
from waldur_site_agent.service.session import (
    MEMBERSHIP_SYNC,
    MODE_NAMES,
    REPORT,
    connect,
    open_site,
)
from waldur_site_agent.waldur import RetryPolicy, Timeouts

_HELP = {"help_option_names": ["-h", "--help"]}
_FILE = click.Path(path_type=Path, dir_okay=False)


def config_of_version_1(default: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """The option for the file, under every name that it had."""
    return click.option(
        "-c",
        "--config-file",
        "--config",
        "config_file",
        type=_FILE,
        default=default,
        callback=of_nobody_else,
        show_default=True,
        help="The configuration file.",
    )


def accepts_mode(command: click.Command) -> click.Command:
    """The command with ``-m``, which version 1 took everywhere and which chooses nothing here."""
    if any("-m" in parameter.opts for parameter in command.params):
        return command
    mode = click.Option(
        ["-m", "--mode"],
        type=click.Choice(MODE_NAMES),
        expose_value=False,
        help="Accepted for scripts of version 1; has no effect.",
    )
    return type(command)(
        command.name,
        callback=command.callback,
        params=[*command.params, mode],
        help=command.help,
        context_settings=command.context_settings,
    )


@click.command("waldur_site_healthz", context_settings=_HELP)
@config_of_version_1("/etc/waldur-site-agent/config.yaml")
@click.option("--max-age", type=float, default=300, show_default=True, help="In seconds.")
@click.option(
    "--readiness-timeout",
    type=float,
    default=5,
    show_default=True,
    help="Seconds for Waldur's answer.",
)
@click.option("--heartbeat-path", type=_FILE, help="The health file, if not that of the file.")
@click.option("--liveness-only", is_flag=True, help="Do not ask Waldur.")
def healthz(
    config_file: Path,
    max_age: float,
    readiness_timeout: float,
    heartbeat_path: Path | None,
    liveness_only: bool,
) -> None:
    """Probe the running agent: its health file is fresh, and Waldur answers for one offering.

    Exit codes: 0 healthy, 1 not, 2 configuration error.
    """
    start = load_or_exit(config_file, quiet=True)
    if not _is_alive(start.configuration, heartbeat_path, max_age):
        sys.exit(FAILED)
    if liveness_only or any(_answers(each, readiness_timeout) for each in start.offerings):
        sys.exit(DONE)
    sys.exit(FAILED)


def _is_alive(configuration: Configuration, path: Path | None, max_age: float) -> bool:
    """Whether the health files are fresh, and no worker is stuck or dead."""
    chosen = str(path) if path else default_health_file(configuration, os.environ)
    if not chosen:
        say("there is no health file: set health_file in the file", err=True)
        return False
    found = [read_health(file, max_age) for file in files_of(chosen, None)]
    for each in found:
        say(f"{each.status}: {each.detail}", err=not each.alive)
    return all(each.alive for each in found)


def _answers(offering: Offering, seconds: float) -> bool:
    timeouts = Timeouts(connect=seconds, read=seconds, whole=seconds)
    once = RetryPolicy(attempts=1)
    try:
        with connect(offering, "healthz", timeouts=timeouts, retry=once) as waldur:
            waldur.whoami()
    except SiteAgentError as error:
        say(on_one_line(f"{offering.name}: {error}"), err=True)
        return False
    return True


_DAY = click.DateTime(["%Y-%m-%d"])
_PER_USER = "usage by user always goes with the totals; run the command without it"
_STALE = (
    "nothing is set to zero because the cluster does not know it; compare with waldur-site-agent "
    "usage show, and correct such figures in Waldur by hand"
)


@click.command("waldur_site_load_historical_usage", context_settings=_HELP)
@config_of_version_1("waldur-site-agent-config.yaml")
@click.option("-o", "--offering-uuid", required=True, help="The offering.")
@click.option("-t", "--user-token", required=True, help="A token of a member of staff.")
@click.option("-s", "--start-date", type=_DAY, required=True, help="In the first month.")
@click.option("-e", "--end-date", type=_DAY, required=True, help="In the last month.")
@click.option("--skip-user-usage", is_flag=True, help=f"Refused: {_PER_USER}.")
@click.option("--no-staff-check", is_flag=True, help="Has no effect: Waldur decides.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--reconcile-stale", is_flag=True, help=f"Refused: {_STALE}.")
@click.option(
    "--resource-backend-id", "accounts", multiple=True, help="Only this account; repeatable."
)
def load_historical_usage(
    *,
    config_file: Path,
    offering_uuid: str,
    user_token: str,
    start_date: datetime,
    end_date: datetime,
    skip_user_usage: bool,
    no_staff_check: bool,
    dry_run: bool,
    reconcile_stale: bool,
    accounts: tuple[str, ...],
) -> None:
    """Report the usage of past months to Waldur, as `waldur-site-agent usage load` does.

    Other users of the machine can read a token on the command line; `usage load` takes it from the
    configuration file.
    """
    del no_staff_check
    for given, option, why in (
        (skip_user_usage, "--skip-user-usage", _PER_USER),
        (reconcile_stale, "--reconcile-stale", _STALE),
    ):
        if given:
            give_up(f"{option} is not supported: {why}")
    redact([user_token])
    start = load_or_exit(config_file, wanted=[offering_uuid], jobs=[REPORT.job], quiet=True)
    months = (
        BillingMonth(start_date.year, start_date.month),
        BillingMonth(end_date.year, end_date.month),
    )
    sys.exit(load_usage(_with_token(start, user_token), months, accounts, dry_run=dry_run))


def _with_token(start: Start, token: str) -> Start:
    own = {"waldur_api_token": SecretStr(token)}
    configuration, chosen = start.configuration, {each.name for each in start.chosen}
    offerings = tuple(
        each.model_copy(update=own) if each.name in chosen else each
        for each in configuration.offerings
    )
    return replace(
        start,
        configuration=configuration.model_copy(update={"offerings": offerings}),
        chosen=tuple(each for each in offerings if each.name in chosen),
    )


@click.command("waldur_site_diagnose_slurm_account", context_settings=_HELP)
@click.argument("account")
@config_of_version_1("waldur-site-agent-config.yaml")
@click.option("--offering-uuid", help="Only this offering.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Also print what agrees.")
@click.option("--no-color", is_flag=True, help="Has no effect.")
def diagnose_slurm_account(
    account: str,
    config_file: Path,
    offering_uuid: str | None,
    as_json: bool,
    verbose: bool,
    no_color: bool,
) -> None:
    """Explain a Slurm account and compare it with its resource in Waldur; change nothing.

    The same as `waldur-site-agent explain ACCOUNT`, with the options and the JSON of version 1.

    Exit codes: 0 both agree, 1 they differ or one of them is missing, 2 configuration error.
    """
    del no_color
    wanted = [offering_uuid] if offering_uuid else []
    start = load_or_exit(config_file, wanted=wanted, jobs=[MEMBERSHIP_SYNC.job], quiet=True)
    runtime = runtime_of(start, dry_run=True)
    checks: dict[str, AccountCheck] = {}

    def look(offering: Offering) -> int:
        with open_site(runtime, offering, MEMBERSHIP_SYNC, lambda: False) as site:
            checks[offering.name] = check_account(site, account)
        return DONE

    served = [o for o in start.offerings if o.backend_for(MEMBERSHIP_SYNC.job) == "slurm"]
    if not served:
        give_up(f"no offering of {config_file} has membership_sync_backend: slurm")
    code = each_offering(start, look, offerings=served, titles=False, errors_below=False)
    found = {name: check for name, check in checks.items() if check.resource is not None}
    name, check = next(iter({**found, **checks}.items()), ("", None))
    if check is None:
        sys.exit(max(code, FAILED))
    explained = explanations(start, account)[0].get(name)
    if as_json:
        more = {"explanation": explanation_json(explained) if explained else None}
        say(json_text(_account_json(name, check) | more))
    else:
        say("\n".join(_account_lines(name, check, verbose=verbose)))
        if explained is not None:
            say("\n".join(explanation_lines(name, explained)))
    sys.exit(DONE if check.status == "ok" else FAILED)


def _fix(name: str, check: AccountCheck) -> list[str]:
    differing = [each.field for each in check.comparisons if not each.agrees]
    if check.resource is not None and check.found is None:
        return []
    fixes = []
    if any(each.startswith("limit") for each in differing):
        fixes.append(f'waldur-site-agent limits sync --to backend --offering "{name}"')
    if "access" in differing:
        fixes.append(f'waldur-site-agent run -m membership_sync --once --offering "{name}"')
    return fixes


def _account_lines(name: str, check: AccountCheck, *, verbose: bool) -> Iterable[str]:
    yield f"{check.account}: {check.status} (offering {name})"
    if check.found is None:
        yield "  ! the cluster has no such account"
    if check.resource is None:
        yield "  ! no resource of the offering has this account as its backend_id"
    else:
        resource = check.resource
        yield on_one_line(f"  resource {resource.name}, {resource.state}, {resource.project_name}")
    for each in check.comparisons:
        if each.agrees and verbose:
            yield f"  {each.field}: {each.actual}"
        elif not each.agrees:
            yield f"  ! {each.field}: {each.actual}, should be {each.expected}: {each.reason}"
    for fix in _fix(name, check):
        yield f"  -> {fix}"


def _account_json(name: str, check: AccountCheck) -> dict[str, Any]:
    found, resource = check.found, check.resource
    return {
        "account_name": check.account,
        "overall_status": check.status,
        "slurm_info": None
        if found is None
        else {
            "parent": found.parent,
            "organization": found.organization,
            "users": sorted(found.members),
            "limits": {key: str(amount) for key, amount in sorted(found.limits.items())},
        },
        "waldur_info": None
        if resource is None
        else {
            "uuid": str(resource.uuid),
            "name": resource.name,
            "state": resource.state,
            "offering": name,
            "paused": resource.paused,
            "downscaled": resource.downscaled,
            "limits": {
                key: None if amount is None else str(amount)
                for key, amount in sorted(resource.limits.items())
            },
        },
        "policy_info": None,
        "expected_settings": {each.field: each.expected for each in check.comparisons},
        "comparisons": [
            {
                "field": each.field,
                "actual": each.actual,
                "expected": each.expected,
                "status": "ok" if each.agrees else "mismatch",
                "reason": each.reason,
                "waldur_value": each.waldur_value,
                "waldur_unit": each.waldur_unit,
                "unit_factor": each.unit_factor,
            }
            for each in check.comparisons
        ],
        "fix_commands": _fix(name, check),
    }


def _refused(name: str, way_out: str) -> click.Command:
    @click.command(
        name,
        help=f"Not part of this version: {way_out}",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        del arguments
        give_up(f"{name} is not part of this version: {way_out}", UNUSABLE)

    return command


export_plugin_catalogue = _refused(
    "waldur_site_export_plugin_catalogue",
    'the settings of the installed plugins are in "waldur-site-agent config schema" (JSON Schema)',
)
test_order = _refused(
    "waldur_site_test_order",
    'try orders with "waldur-site-agent sandbox", a Waldur in memory; "waldur-site-agent plan" '
    "says what a real order would do",
)
