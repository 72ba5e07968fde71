"""``install-services`` and ``health``: the agent as a service of a machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from waldur_site_agent.cli.starting import DONE, FAILED, config_option, give_up, load_or_exit
from waldur_site_agent.service.health_file import files_of, read_health
from waldur_site_agent.service.modes import MODE_NAMES
from waldur_site_agent.service.units import (
    CONFIGURATION,
    PROGRAM,
    Choices,
    service_files,
    unit_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent.service.units import File


@click.command("install-services")
@click.option("--print", "only_print", is_flag=True, help="Print the files; install nothing.")
@click.option(
    "-m",
    "--mode",
    "modes",
    type=click.Choice(MODE_NAMES),
    multiple=True,
    help="Only the service of this mode; may be given several times. Default: every one.",
)
@click.option("--user", default="", help="Run as this ordinary user, instead of root.")
@click.option(
    "--sudo-homes",
    is_flag=True,
    help="With --user: make home directories through a sudo rule, which is installed too.",
)
@click.option("--legacy", is_flag=True, help="For systemd older than 240: log files.")
@click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=CONFIGURATION,
    show_default=True,
    help="The configuration file that the services read.",
)
@click.option(
    "--credential",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with the token, which systemd hands over; then set "
    "waldur_api_token_file: ${CREDENTIALS_DIRECTORY}/token.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Install below this directory.",
)
@click.option("--force", is_flag=True, help="Replace files that differ.")
def install_services(
    *,
    only_print: bool,
    modes: tuple[str, ...],
    user: str,
    sudo_homes: bool,
    legacy: bool,
    config_file: Path,
    credential: Path | None,
    root: Path,
    force: bool,
) -> None:
    """Install the agent's services for systemd, or print them.

    Nothing is enabled or started. A file that is there and differs is left alone and named, unless
    --force is given; put local changes into drop-ins (systemctl edit).
    """
    try:
        choices = Choices(
            program=_program(),
            config=config_file,
            user=user,
            sudo_homes=sudo_homes,
            legacy=legacy,
            credential=credential,
        )
    except ValueError as error:
        give_up(str(error))
    found = service_files(list(modes or MODE_NAMES), choices)
    if only_print:
        for file in found:
            click.echo(f"# {file.path}\n{file.text}")
        return
    sys.exit(_install(found, root, force=force, first=unit_name((modes or ("all",))[0])))


@click.command("health")
@config_option
@click.option("-m", "--mode", type=click.Choice(MODE_NAMES), help="The process of this mode only.")
@click.option(
    "--strict", is_flag=True, help="Fail, too, while cycles fail; a restart would not help then."
)
def health(config_file: Path, mode: str | None, strict: bool) -> None:
    """Say whether the running agent makes progress, from its health file; for probes.

    Exit codes: 0 it does, 1 it is stuck, dead or not there, 2 health_file is not set.
    """
    path = load_or_exit(config_file, quiet=True).configuration.health_file
    if not path:
        give_up(f"{config_file}: health_file is not set, so there is nothing to look at")
    code = DONE
    for found in map(read_health, files_of(path, mode)):
        click.echo(f"{found.status}: {found.detail}")
        if not found.alive or (strict and found.status != "ok"):
            code = FAILED
    sys.exit(code)


def _program() -> Path:
    """The agent's own program in the installation that this command belongs to."""
    beside = Path(sys.executable).parent / PROGRAM.name
    return beside if beside.exists() else PROGRAM


def _install(found: Sequence[File], root: Path, *, force: bool, first: str) -> int:
    code = DONE
    for file in found:
        target = root / file.path.relative_to("/")
        try:
            word = _put(file, target, force=force)
        except OSError as error:
            give_up(f"{target}: cannot be written: {error.strerror}; run this as root", FAILED)
        click.echo(f"{word:<9} {target}")
        if word == "DIFFERS":
            code = FAILED
    if code == FAILED:
        click.echo("files that differ were left as they are; --force replaces them")
    else:
        click.echo(f"next: systemctl daemon-reload && systemctl enable --now {first}")
    return code


def _put(file: File, target: Path, *, force: bool) -> str:
    found = target.read_text(encoding="utf-8") if target.exists() else None
    if found == file.text:
        return "unchanged"
    if found is not None and not force:
        return "DIFFERS"
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.new")
    draft.write_text(file.text, encoding="utf-8")
    draft.chmod(file.mode)
    draft.replace(target)
    return "installed"
