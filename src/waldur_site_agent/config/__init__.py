"""Loads the YAML file into typed settings, or reports errors with line and remedy."""

from waldur_site_agent.config.describing import resolved_yaml
from waldur_site_agent.config.loading import (
    BrokenOffering,
    Loaded,
    load_configuration,
    load_usable,
)
from waldur_site_agent.config.settings import Budgets, Configuration, Job, Offering, Safety
from waldur_site_agent.config.source import ConfigurationError, Problem, Source, problems_of

__all__ = [
    "BrokenOffering",
    "Budgets",
    "Configuration",
    "ConfigurationError",
    "Job",
    "Loaded",
    "Offering",
    "Problem",
    "Safety",
    "Source",
    "load_configuration",
    "load_usable",
    "problems_of",
    "resolved_yaml",
]
