"""The configuration as it is understood, for people: defaults filled in, secrets masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from waldur_site_agent.config.secrecy import masked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent.config.settings import Configuration


def resolved_yaml(
    configuration: Configuration, backend_settings: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """The resolved configuration as YAML; anything that may be a secret is masked.

    Args:
        configuration: the file.
        backend_settings: by offering's name, its settings as the plugins that own them understand
            them; those of other offerings are shown as the file has them.
    """
    values = configuration.model_dump(mode="json")
    for offering in values["offerings"]:
        offering["backend_settings"] |= (backend_settings or {}).get(offering["name"], {})
    return yaml.safe_dump(masked(values), sort_keys=False, allow_unicode=True)
