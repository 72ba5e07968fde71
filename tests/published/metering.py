"""Fakes of services that only know usage."""

from __future__ import annotations

from typing import Any

from published.service import Answer, Service


class Gateway(Service):
    """The usage of a gateway to language models, as two kinds of it tell their tokens."""

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """Readiness, the activity of LiteLLM, and rows of Envoy's warehouse."""
        del method, body
        match path:
            case "/user/daily/activity":
                row = {
                    "metadata": {"key_alias": "lake-1"},
                    "metrics": {"prompt_tokens": 700, "completion_tokens": 90, "spend": 1.5},
                }
                day = {"date": query["start_date"], "breakdown": {"api_keys": {"hash": row}}}
                return 200, {"results": [day], "metadata": {"total_pages": 1, "has_more": False}}
            case "/usage-month":
                row = {"client_id": "lake", "input_tokens": 700, "output_tokens": 90}
                return 200, {"usage": [row]}
            case _:
                return 200, {"status": "healthy", "db": "connected"}


class Warehouse(Service):
    """A data warehouse of usage, behind a token."""

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """A token for whoever asks, and figures for one account."""
        del method, query, body
        if path == "/token":
            return 200, {"access_token": "token", "expires_in": 300, "token_type": "Bearer"}
        people = [{"username": "ada01", "nodeHours": 3, "cpuHours": 30}]
        return 200, {
            "compute": [{"account": "lake", "totalNodeHours": 3, "users": people}],
            "storage": [{"path": "/store/lake", "spaceUsed": 5_000_000_000}],
            "inference": [],
        }
