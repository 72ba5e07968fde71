"""The ``backend_settings`` that all command-line backends share."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from waldur_site_agent.backends.backend_settings import BackendSettings
from waldur_site_agent.backends.directory_settings import HomeQuota, ProjectDirectory, absolute

_EVERYTHING, _OWNER = 0o777, 0o700


def umask_of(setting: str) -> str:
    """Return the umask that a ``homedir_umask`` means, as octal digits.

    A value with owner bits would, as a umask, lock the owner out; old files have ``0700`` and
    mean the mode.

    Raises:
        ValueError: as a mode it does not give the owner everything.
    """
    number = int(setting, 8)
    if number & _OWNER == 0:
        return f"{number:04o}"
    if number & _OWNER != _OWNER or number > _EVERYTHING:
        raise ValueError(
            f"{setting!r} is neither a umask, which leaves the owner's bits alone (0077), nor a "
            "mode that lets the owner do everything (0700)"
        )
    return f"{_EVERYTHING & ~number:04o}"


class CommandLineSettings(BackendSettings):
    """The part of ``backend_settings`` that every backend with commands has."""

    enable_user_homedir_account_creation: bool = True
    """Whether members without a home directory get one."""
    homedir_umask: str = Field(default="0700", pattern=r"^0?[0-7]{3,4}$")
    """A umask; a value with owner bits is read as the mode that was meant (``0700``: umask 077)."""
    homedir_sudo: bool = False
    """Whether ``mkhomedir_helper`` is started through ``sudo -n``, by an agent that is not root."""
    homedir_base_path: str = ""
    """Where home directories are on this machine: users whose home the operating system has
    elsewhere get none from the agent. Without it, wherever the operating system says."""
    homedir_quota: HomeQuota | None = None
    """The quota of home directories that the agent makes."""
    project_directory: ProjectDirectory = ProjectDirectory()
    """A directory for the members of each account."""
    command_timeout_seconds: float = Field(default=60, gt=0)
    """For reading commands; writing commands may get more."""
    check_backend_id_uniqueness: bool = False
    """Whether the name of a terminated resource is never given again, to nobody."""
    backend_id_max_retries: int = Field(default=10, ge=0, le=1000)
    """How many further names (``-0``, ``-1``, ...) are tried where the offering names by project
    and the first one is taken."""
    retry_seconds: float = Field(default=60, ge=0)
    """How long a pass tries again, after growing pauses, when the backend's database refuses, is
    locked or hangs; then the rest waits for the next cycle. 0: at once."""

    @field_validator("homedir_quota", mode="before")
    @classmethod
    def _no_quota(cls, value: object) -> object:
        return value or None

    @field_validator("homedir_base_path", mode="before")
    @classmethod
    def _no_base_path(cls, value: object) -> object:
        return value or ""

    @field_validator("homedir_base_path")
    @classmethod
    def _absolute_base_path(cls, value: str) -> str:
        return absolute(value)

    @field_validator("project_directory", mode="before")
    @classmethod
    def _no_project_directory(cls, value: object) -> object:
        return value or {}

    @model_validator(mode="after")
    def _quotas_need_root(self) -> CommandLineSettings:
        if self.homedir_quota and self.homedir_sudo:
            raise ValueError(
                "homedir_quota and homedir_sudo are both set: quotas are set by root, and a rule "
                "for sudo could not be limited to them; run the agent as root, or set quotas with "
                "the file system's own tools"
            )
        return self

    @field_validator("homedir_umask", mode="before")
    @classmethod
    def _octal_number_of_yaml(cls, value: object) -> object:
        """Without quotes YAML reads ``0700`` as the number 448."""
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return f"{value:04o}" if is_number else value

    @field_validator("homedir_umask")
    @classmethod
    def _usable_umask(cls, value: str) -> str:
        umask_of(value)
        return value
