"""Stands for ``waldur_site_agent.backend.clients``."""

from __future__ import annotations

import subprocess
from typing import Any

from waldur_site_agent_v1_plugins.interface.backend.exceptions import BackendError
from waldur_site_agent_v1_plugins.interface.backend.structures import Association, ClientResource

COMMAND_TIMEOUT_SECONDS = 600
"""Version 1 waited for ever; here a command that hangs ends with an error."""


class BaseClient:
    """Speaks to a backend; plugins override what they use."""

    def __init__(self, *_args: Any, **_options: Any) -> None:
        self.executed_commands: list[str] = []

    def list_resources(self) -> list[ClientResource]:
        """All resources."""
        raise NotImplementedError

    def get_resource(self, resource_id: str) -> ClientResource | None:
        """One resource; ``None`` if it does not exist."""
        raise NotImplementedError

    def create_resource(
        self, name: str, description: str, organization: str, parent_name: str | None = None
    ) -> str:
        """Make a resource."""
        raise NotImplementedError

    def delete_resource(self, name: str) -> str:
        """Delete a resource."""
        raise NotImplementedError

    def set_resource_limits(self, resource_id: str, limits_dict: dict[str, int]) -> str | None:
        """Set limits, in backend units."""
        raise NotImplementedError

    def get_resource_limits(self, resource_id: str) -> dict[str, int]:
        """The limits, in backend units."""
        raise NotImplementedError

    def get_resource_user_limits(self, resource_id: str) -> dict[str, dict[str, int]]:
        """The limits of single users."""
        raise NotImplementedError

    def set_resource_user_limits(
        self, resource_id: str, username: str, limits_dict: dict[str, int]
    ) -> str:
        """Limit one user."""
        raise NotImplementedError

    def get_association(self, user: str, resource_id: str) -> Association | None:
        """Whether a user is a member."""
        raise NotImplementedError

    def create_association(
        self, username: str, resource_id: str, default_account: str | None = None
    ) -> str:
        """Add a member."""
        raise NotImplementedError

    def delete_association(self, username: str, resource_id: str) -> str:
        """Remove a member."""
        raise NotImplementedError

    def get_usage_report(self, resource_ids: list[str], timezone: str | None = None) -> list[Any]:
        """Raw usage records."""
        raise NotImplementedError

    def list_resource_users(self, resource_id: str) -> list[str]:
        """The members."""
        raise NotImplementedError

    def execute_command(self, command: list[str], silent: bool = False) -> str:
        """Run a command without a shell; what it prints on both streams.

        Raises:
            BackendError: it is missing, failed or did not end in time.
        """
        del silent
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=COMMAND_TIMEOUT_SECONDS,
                check=False,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"{command[0]} did not end in {error.timeout:.0f} s") from error
        except OSError as error:
            raise BackendError(f"{command[0]} cannot be run: {error}") from error
        if done.returncode:
            raise BackendError(done.stdout)
        return done.stdout

    def create_linux_user_homedir(self, username: str, umask: str = "") -> str:
        """Make a home directory with the system's helper."""
        command = ["/sbin/mkhomedir_helper", username]
        return self.execute_command([*command, umask] if umask else command)


class UnknownClient(BaseClient):
    """Knows nothing and does nothing; what a plugin has until it sets its own."""

    def list_resources(self) -> list[ClientResource]:
        """Nothing."""
        return []

    def get_resource(self, resource_id: str) -> ClientResource | None:
        """Nothing."""
        del resource_id
        return None

    def create_resource(
        self, name: str, description: str, organization: str, parent_name: str | None = None
    ) -> str:
        """Nothing."""
        del name, description, organization, parent_name
        return ""

    def delete_resource(self, name: str) -> str:
        """Nothing."""
        del name
        return ""

    def set_resource_limits(self, resource_id: str, limits_dict: dict[str, int]) -> str | None:
        """Nothing."""
        del resource_id, limits_dict
        return ""

    def get_resource_limits(self, resource_id: str) -> dict[str, int]:
        """Nothing."""
        del resource_id
        return {}

    def get_resource_user_limits(self, resource_id: str) -> dict[str, dict[str, int]]:
        """Nothing."""
        del resource_id
        return {}

    def set_resource_user_limits(
        self, resource_id: str, username: str, limits_dict: dict[str, int]
    ) -> str:
        """Nothing."""
        del resource_id, username, limits_dict
        return ""

    def get_association(self, user: str, resource_id: str) -> Association | None:
        """Nothing."""
        del user, resource_id
        return None

    def create_association(
        self, username: str, resource_id: str, default_account: str | None = None
    ) -> str:
        """Nothing."""
        del username, resource_id, default_account
        return ""

    def delete_association(self, username: str, resource_id: str) -> str:
        """Nothing."""
        del username, resource_id
        return ""

    def get_usage_report(self, resource_ids: list[str], timezone: str | None = None) -> list[Any]:
        """Nothing."""
        del resource_ids, timezone
        return []

    def list_resource_users(self, resource_id: str) -> list[str]:
        """Nothing."""
        del resource_id
        return []
