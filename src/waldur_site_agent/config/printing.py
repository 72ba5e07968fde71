"""The configuration as it is understood, for people: defaults filled in, secrets masked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from waldur_site_agent.config.secrecy import masked

if TYPE_CHECKING:
    from waldur_site_agent.config.settings import Configuration


def resolved_yaml(configuration: Configuration) -> str:
    """The resolved configuration as YAML; anything that may be a secret is masked."""
    values = configuration.model_dump(mode="json")
    return yaml.safe_dump(masked(values), sort_keys=False, allow_unicode=True)
