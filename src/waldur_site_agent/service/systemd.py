"""The files that run the agent as a service: systemd units, logrotate, sudoers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from waldur_site_agent.config.settings import ENVIRONMENT_FILE
from waldur_site_agent.service.modes import MODE_NAMES

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
_SAFE_WORD = re.compile(r"[\w@%+=:,./-]+", re.ASCII)

_FOR_EVERYBODY = """\
NoNewPrivileges=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
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
{_FOR_EVERYBODY}PrivateDevices=yes
ProtectSystem=strict
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
        credential=f"LoadCredential=token:{choices.credential}" if choices.credential else "",
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
