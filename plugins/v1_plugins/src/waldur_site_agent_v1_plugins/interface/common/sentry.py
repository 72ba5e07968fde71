"""Stands for ``waldur_site_agent.common.sentry``."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"(?i)([?&\s\"']|^)((?:secret|access|api|private)[-_]?key|(?:\w+[-_])?token|password|passwd|secret)"
    r"=([^&\s\"']*)"
)


def scrub_secret_query_params(text: str) -> str:
    """A text with the values of secret query parameters masked."""
    return _SECRET.sub(r"\1\2=***", text)
