"""``init``, ``install-services`` and ``health``: systemd units, logrotate and sudoers files."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from uuid import UUID

import click

from waldur_site_agent.backends.output_files import make_directory, replace_file
from waldur_site_agent.backends.plugins import PluginError, Registry
from waldur_site_agent.cli.output import say
from waldur_site_agent.cli.start import (
    DONE,
    FAILED,
    check_file,
    config_option,
    give_up,
    load_or_exit,
)
from waldur_site_agent.config.loading import MALFORMED, is_well_formed_token
from waldur_site_agent.config.settings import ENVIRONMENT_FILE
from waldur_site_agent.config.starter import (
    TOKEN_VARIABLE,
    Answers,
    environment_line,
    starter_file,
)
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.service.health import default_health_file, files_of, read_health
from waldur_site_agent.service.session import MODE_NAMES
from waldur_site_agent.waldur.address import ApiAddress

PROGRAM = Path("/opt/waldur-site-agent/bin/waldur_site_agent")
CONFIGURATION = Path("/etc/waldur-site-agent/config.yaml")
UNITS, LOGROTATE, SUDOERS = "/etc/systemd/system", "/etc/logrotate.d", "/etc/sudoers.d"
_ALL = "all"
_DESCRIPTIONS = {
    "order_process": "carries out orders",
    "report": "reports usage",
    "membership_sync": "syncs members",
    "event_process": "reacts to events",
    _ALL: "all modes in one process",
}
_USER_NAME = re.compile(r"(?![A-Z0-9_]+$)[A-Za-z_][A-Za-z0-9_.@-]*")
"""In sudoers, ``%`` begins a group, and a word of capitals may be an alias or ``ALL``."""
_SAFE_WORD = re.compile(r"[\w@%+=:,./-]+", re.ASCII)

_FOR_EVERYBODY = """\
NoNewPrivileges=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
LockPersonality=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""
_FOR_ROOT = f"""\
# home directories are created below /home or elsewhere, then chowned to their users
{_FOR_EVERYBODY}ProtectSystem=full
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID"""
_FOR_A_USER = f"""\
# home directories are checked, not created: ProtectHome=yes would hide all of them
{_FOR_EVERYBODY}ProtectSystem=strict
ProtectHome=read-only
CapabilityBoundingSet=
AmbientCapabilities="""
_FOR_A_USER_WITH_SUDO = """\
# NoNewPrivileges, and every option that implies it, would break sudo; a read-only file system
# would also be read-only for the command that sudo runs
NoNewPrivileges=no
PrivateTmp=yes
ProtectSystem=full
ProtectControlGroups=yes"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The choices a site has for its services."""

    program: Path = PROGRAM
    config: Path = CONFIGURATION
    user: str = ""
    """The unprivileged user to run as; root if empty."""
    credential: Path | None = None
    """A file with the token, which systemd passes as the credential ``token``."""
    sudo_homes: bool = False
    """Whether the unprivileged user creates home directories through sudo."""
    legacy: bool = False
    """For systemd older than 240."""
    homedir_umask: str = "0077"

    def __post_init__(self) -> None:
        """Refuse values that systemd would split into several words.

        Raises:
            ValueError: a value needs quoting, or options exclude each other.
        """
        words = (self.program, self.config, self.user, self.credential or "", self.homedir_umask)
        for word in map(str, words):
            if word and not _SAFE_WORD.fullmatch(word):
                raise ValueError(f"{word!r}: use only letters, digits and . _ - / @ + = : , %")
        if self.user and not _USER_NAME.fullmatch(self.user):
            raise ValueError(f"--user {self.user!r} is not the name of a user")
        for path in (self.program, self.config, self.credential):
            if path is not None and not path.is_absolute():
                raise ValueError(f"{str(path)!r}: systemd needs an absolute path")
        if self.sudo_homes and not self.user:
            raise ValueError("root needs no sudo: add --user, or omit --sudo-homes")
        if self.credential and self.legacy:
            raise ValueError(
                "systemd older than 240 has no credentials: omit --credential or --legacy"
            )


@dataclass(frozen=True, slots=True)
class File:
    """A file to install."""

    path: Path
    text: str
    mode: int = 0o644


def unit_name(mode: str) -> str:
    """The name of a mode's service, without ``.service``."""
    return "waldur-agent" if mode == _ALL else f"waldur-agent-{mode.replace('_', '-')}"


def unit(mode: str, choices: Choices) -> str:
    """The text of a mode's service."""
    alone = mode == _ALL
    others = [unit_name(m) for m in MODE_NAMES if m != _ALL] if alone else [unit_name(_ALL)]
    identity = f"User={choices.user}\nGroup={choices.user}" if choices.user else ""
    text = _template("legacy.service" if choices.legacy else "service").substitute(
        name=unit_name(mode),
        mode=mode,
        description=_DESCRIPTIONS[mode],
        conflicts="Conflicts=" + " ".join(f"{other}.service" for other in others),
        program=str(choices.program).replace("%", "%%"),
        config=str(choices.config).replace("%", "%%"),
        identity=identity,
        environment=_own_environment(choices.config).replace("%", "%%"),
        ownership=f"-o {choices.user} -g {choices.user}" if choices.user else "-o root -g root",
        credential=_credential(choices.credential),
        hardening=_hardening(choices),
    )
    return re.sub(r"(?<=\n)\n(?=[A-Z][A-Za-z]+=|\n)", "", text)


def service_files(modes: list[str], choices: Choices) -> list[File]:
    """All files for the services of these modes."""
    found = [File(Path(UNITS, f"{unit_name(mode)}.service"), unit(mode, choices)) for mode in modes]
    found.append(File(Path(LOGROTATE, "waldur-site-agent"), logrotate()))
    if choices.sudo_homes:
        found.append(File(Path(SUDOERS, "waldur-site-agent"), sudoers(choices), 0o440))
    return found


def logrotate() -> str:
    """The logrotate configuration."""
    return _template("logrotate").template


def sudoers(choices: Choices) -> str:
    """The sudoers rule that lets the agent's user create home directories."""
    return _template("sudoers").substitute(user=choices.user, umask=choices.homedir_umask)


def _credential(file: Path | None) -> str:
    return f"LoadCredential=token:{str(file).replace('%', '%%')}" if file else ""


def _own_environment(config: Path) -> str:
    """The line for an environment file that ``init`` wrote in another directory."""
    if config.parent == CONFIGURATION.parent:
        return ""
    return f"EnvironmentFile=-{config.parent / ENVIRONMENT_FILE}"


def _hardening(choices: Choices) -> str:
    if not choices.user:
        return _FOR_ROOT
    return _FOR_A_USER_WITH_SUDO if choices.sudo_homes else _FOR_A_USER


def _template(name: str) -> Template:
    return Template((files(__package__) / "unit_files" / name).read_text(encoding="utf-8"))


@click.command("install-services")
@click.option("--print", "only_print", is_flag=True, help="Print the files; install nothing.")
@click.option(
    "-m",
    "--mode",
    "modes",
    type=click.Choice(MODE_NAMES),
    multiple=True,
    help="Only the service of this mode; repeatable. Default: all modes.",
)
@click.option("--user", default="", help="Run as this unprivileged user instead of root.")
@click.option(
    "--sudo-homes",
    is_flag=True,
    help="With --user: create home directories through sudo; also installs the sudo rule.",
)
@click.option("--legacy", is_flag=True, help="For systemd older than 240: write log files.")
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
    help="File with the token, passed by systemd as a credential; also set "
    "waldur_api_token_file: ${CREDENTIALS_DIRECTORY}/token.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Install under this directory.",
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

    No service is enabled or started. Existing files that differ are listed and kept, unless --force
    is given; put local changes into drop-ins (systemctl edit).
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
            say(f"# {file.path}\n{file.text}")
        return
    sys.exit(_install(found, root, force=force, first=unit_name((modes or ("all",))[0])))


@click.command("health")
@config_option
@click.option("-m", "--mode", type=click.Choice(MODE_NAMES), help="Only the process of this mode.")
@click.option(
    "--strict",
    is_flag=True,
    help="Also exit 1 while cycles fail, although a restart would not help.",
)
def health(config_file: Path, mode: str | None, strict: bool) -> None:
    """Check the health of the running agent, from its health file; for probes.

    Exit codes: 0 healthy, 1 stuck, dead or not running, 2 health_file is not set.
    """
    configuration = load_or_exit(config_file, quiet=True).configuration
    path = default_health_file(configuration, os.environ)
    if not path:
        give_up(f"{config_file}: health_file is not set, so there is nothing to check")
    code = DONE
    for found in map(read_health, files_of(path, mode)):
        say(f"{found.status}: {found.detail}")
        if not found.alive or (strict and found.status != "ok"):
            code = FAILED
    sys.exit(code)


def _program() -> Path:
    """The agent's executable in the same environment as this command."""
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
        say(f"{word:<9} {target}")
        if word == "DIFFERS":
            code = FAILED
    if code == FAILED:
        say("files that differ were kept; --force replaces them")
    else:
        say(f"next: systemctl daemon-reload && systemctl enable --now {first}")
    return code


def _put(file: File, target: Path, *, force: bool) -> str:
    found = target.read_text(encoding="utf-8") if target.exists() else None
    if found == file.text:
        return "unchanged"
    if found is not None and not force:
        return "DIFFERS"
    make_directory(target.parent)
    replace_file(target, file.text.encode(), file.mode, ignore_umask=True)
    return "installed"


_OWNER_ONLY, _EVERYBODY_READS = 0o600, 0o644
_PROGRAMS = {"slurm": "sacctmgr", "moab": "mam-list-accounts"}


@click.command("init")
@click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=CONFIGURATION,
    show_default=True,
    help="The configuration file to write; the token goes into the file 'environment' beside it.",
)
@click.option(
    "--waldur-url", metavar="URL", help="URL of Waldur, such as https://waldur.example.com."
)
@click.option(
    "--offering-uuid",
    metavar="UUID",
    help="UUID of the offering, as in the address of its page in Waldur.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="Read the agent's API token from this file; '-' is standard input.",
)
@click.option("--backend", metavar="NAME", help="Name of the backend, such as slurm or moab.")
@click.option("--name", help="Name of the offering in the agent's logs and output.")
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of backend_settings, such as slurm_bin_path=/opt/slurm/bin; repeatable.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace existing files; the old ones are kept with the suffix '.old'.",
)
def init_command(
    *,
    config_file: Path,
    waldur_url: str | None,
    offering_uuid: str | None,
    token_file: str | None,
    backend: str | None,
    name: str | None,
    settings: tuple[str, ...],
    force: bool,
) -> None:
    """Write a commented configuration, and an environment file with the token.

    Missing options are asked for on the terminal; without a terminal all are required. Neither
    Waldur nor the cluster is contacted. Existing files are kept unless --force is given.
    """
    environment = config_file.parent / ENVIRONMENT_FILE
    _refuse_existing([config_file, environment], force=force)
    installed = Registry().names()
    if not installed:
        give_up("no backend is installed; install waldur-site-agent[slurm] as you did the agent")
    _require_terminal_or(
        {
            "--waldur-url": waldur_url,
            "--offering-uuid": offering_uuid,
            "--token-file": token_file,
            "--backend": backend,
            "--name": name,
        }
    )
    url = _answer("--waldur-url", waldur_url, "1/5  Address of Waldur", _url)
    uuid = _answer("--offering-uuid", offering_uuid, "2/5  UUID of the offering", _uuid)
    token = _token(token_file)
    usual = "slurm" if "slurm" in installed else installed[0]
    backend = _answer(
        "--backend",
        backend,
        f"4/5  Backend ({', '.join(installed)})",
        _installed,
        usual,
    )
    name = _answer(
        "--name", name, "5/5  Name of the offering in the agent's logs", _line, f"{backend} cluster"
    )
    answers = Answers(
        name=name, url=url, uuid=uuid, backend=backend, settings=dict(map(_setting, settings))
    )
    _write(config_file, starter_file(str(config_file), answers), environment, token, force=force)
    say(f"written: {config_file}")
    say(f"written: {environment} (mode 0600, with the token)")
    check_file(config_file)
    _say_what_is_next(config_file, answers)


def _refuse_existing(files: list[Path], *, force: bool) -> None:
    there = [str(file) for file in files if os.path.lexists(file)]
    if there and not force:
        give_up(
            f"nothing written, because these files exist: {', '.join(there)}; name another "
            "file with -c, or give --force, which keeps the old files as FILE.old"
        )


def _require_terminal_or(options: dict[str, str | None]) -> None:
    """Refuse to prompt without a terminal."""
    missing = [option for option, value in options.items() if value is None]
    if missing and not sys.stdin.isatty():
        raise click.UsageError(
            f"no terminal to prompt on; these options are required: {', '.join(missing)}"
        )


def _answer(
    option: str,
    given: str | None,
    question: str,
    check: Callable[[str], str],
    default: str | None = None,
) -> str:
    if given is None:
        answer: str = click.prompt(question, value_proc=check, default=default, err=True)
        return answer
    try:
        return check(given)
    except click.BadParameter as error:
        raise click.UsageError(f"{option}: {error.message}") from None


def _token(file: str | None) -> str:
    if file is None:
        token: str = click.prompt(
            "3/5  API token of the agent's user (not shown)",
            hide_input=True,
            value_proc=_well_formed,
            err=True,
        )
        return token
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--token-file: {file} cannot be read: {error}") from None
    try:
        return _well_formed(text)
    except click.BadParameter as error:
        raise click.UsageError(f"--token-file: {error.message}") from None


def _well_formed(text: str) -> str:
    token = text.strip()
    if not token:
        raise click.BadParameter("the token is empty")
    if not is_well_formed_token(token):
        raise click.BadParameter(f"the token {MALFORMED}")
    try:
        environment_line(token)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return token


def _url(text: str) -> str:
    try:
        return ApiAddress.parse(text).url
    except PermanentError as error:
        raise click.BadParameter(str(error).replace("waldur_api_url", "it", 1)) from None


def _uuid(text: str) -> str:
    try:
        return UUID(text.strip()).hex
    except ValueError:
        raise click.BadParameter(
            f'"{text}" is not a UUID; copy it from the address of the offering\'s page in Waldur'
        ) from None


def _installed(text: str) -> str:
    try:
        Registry().backend_class(text)
    except PluginError as error:
        raise click.BadParameter(str(error)) from None
    return text


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise click.BadParameter("enter a name on one line")
    return text.strip()


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key.isidentifier():
        raise click.UsageError(f"--setting {text}: expected KEY=VALUE")
    return key, value


def _write(file: Path, text: str, environment: Path, token: str, *, force: bool) -> None:
    """Write both files or neither; the token's file is created with mode 0600."""
    made: list[Path] = []
    kept: dict[Path, Path] = {}
    try:
        make_directory(file.parent)
        for old in (file, environment) if force else ():
            if os.path.lexists(old):
                kept[old] = old.replace(old.with_name(f"{old.name}.old"))
        lines = _other_variables(kept.get(environment)) + environment_line(token)
        for path, content, mode in (
            (environment, lines, _OWNER_ONLY),
            (file, text, _EVERYBODY_READS),
        ):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(path)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(content)
    except OSError as error:
        with suppress(OSError):
            for path in made:
                path.unlink()
            for path, backup in kept.items():
                backup.replace(path)
        where = error.filename or file
        give_up(
            f"{where}: cannot be written: {error.strerror}; run this as root (sudo), or name "
            "a file in a directory of yours with -c FILE",
            FAILED,
        )


def _other_variables(old: Path | None) -> str:
    """Other variables of the replaced environment file, such as the periods of the services."""
    lines = old.read_text(encoding="utf-8").splitlines() if old else []
    return "".join(
        f"{line}\n" for line in lines if not line.lstrip().startswith(f"{TOKEN_VARIABLE}=")
    )


def _say_what_is_next(file: Path, answers: Answers) -> None:
    has_bin_path = any(key.endswith("_bin_path") for key in answers.settings)
    program = _PROGRAMS.get(answers.backend)
    if program and not has_bin_path and shutil.which(program) is None:
        say(
            f"note: {program} is not in PATH; if it is elsewhere, name its directory in the file, "
            "below backend_settings"
        )
    name = shlex.quote(str(file))
    say(
        f"""
Review the file, then run:
  waldur-site-agent diagnose -c {name}          # check the setup; changes nothing
  waldur-site-agent components load -c {name}   # write the offering's components to Waldur
  waldur-site-agent plan -c {name}              # what the agent would do; changes nothing

When the plan is right: waldur-site-agent install-services"""
        + ("" if file == CONFIGURATION else f" -c {shlex.quote(str(file.absolute()))}")
    )
