"""The file server's interface: one list of all folders, and changes to one folder at a time."""

from __future__ import annotations

from typing import Any

import httpx


class FileServer:
    """A list of folders, and changes of one folder or of one of its users."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, transport=transport)

    def folders(self) -> dict[str, dict[str, Any]]:
        """Every folder with its title, project, limits, users and whether it is paused."""
        answer = self._http.get("/folders")
        answer.raise_for_status()
        return {folder["name"]: folder for folder in answer.json()}

    def put(self, name: str, **fields: Any) -> None:
        """Make a folder, or change the named fields of one."""
        self._http.put(f"/folders/{name}", json=fields).raise_for_status()

    def delete(self, name: str) -> None:
        """Delete a folder."""
        self._http.delete(f"/folders/{name}").raise_for_status()

    def put_user(self, name: str, user: str) -> None:
        """Let a user into a folder."""
        self._http.put(f"/folders/{name}/users/{user}").raise_for_status()

    def delete_user(self, name: str, user: str) -> None:
        """Put a user out of a folder."""
        self._http.delete(f"/folders/{name}/users/{user}").raise_for_status()
