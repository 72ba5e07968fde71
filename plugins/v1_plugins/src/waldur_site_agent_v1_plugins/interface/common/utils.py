"""Stands for ``waldur_site_agent.common.utils``: clients for plugins with a token of their own."""

from __future__ import annotations

from typing import Any, NoReturn

from waldur_api_client import AuthenticatedClient


def get_client(
    api_url: str,
    access_token: str,
    agent_header: str | None = None,
    verify_ssl: bool = True,
    proxy: str | None = None,
    token_prefix: str = "Token",  # noqa: S107 - the word before the token
    timeout: float = 600,
    auth: Any = None,
) -> AuthenticatedClient:
    """A client of the official SDK with the plugin's own address and token."""
    options = {"verify": verify_ssl, **({"proxy": proxy} if proxy else {})}
    if auth is not None:
        options["auth"] = auth
    return AuthenticatedClient(
        base_url=api_url.rstrip("/").removesuffix("/api"),
        token=access_token,
        prefix=token_prefix,
        timeout=timeout,  # type: ignore[arg-type]  # httpx takes seconds as well
        headers={"User-Agent": agent_header} if agent_header else {},
        httpx_args=options,
    )


def get_client_for_offering(*_args: Any, **_options: Any) -> NoReturn:
    """The agent does not lend its own token.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "version 2 of the agent does not hand its token to plugins; give the plugin a token of its "
        "own in backend_settings, if it supports that"
    )


def load_configuration(*_args: Any, **_options: Any) -> NoReturn:
    """Commands of plugins that load the configuration of version 1 cannot run.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "commands that load the configuration of version 1 do not run with version 2 of the agent"
    )


def sync_waldur_resource_limits(*_args: Any, **_options: Any) -> None:
    """The agent compares limits itself."""
