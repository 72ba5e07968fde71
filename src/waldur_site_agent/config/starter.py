"""Writes a site's first configuration file, with comments (``waldur-site-agent init``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

TOKEN_VARIABLE = "WALDUR_API_TOKEN"  # noqa: S105 - the variable's name, not the token

_FILE = """\
# The configuration of waldur-site-agent: one file for all Waldur offerings of this site.
# Every key: docs/reference.md, or "waldur-site-agent config reference". After a change:
#   waldur-site-agent config check -c {path}

timezone: UTC             # billing months are cut in this zone
log_level: info           # debug, info, warning, error
# journal: /var/log/waldur-site-agent/actions.jsonl          # every applied change, one per line
# health_file: /run/waldur-site-agent/health-{{mode}}.json     # for "waldur-site-agent health"
# metrics_listen: 127.0.0.1:9464                             # Prometheus

safety:                   # a plan that removes more than both of these is refused until allowed
  max_removals_percent: 30
  max_removals: 10
  missing_limits: refuse  # orders without a limit of what is sold by limit fail, instead of
                          # getting it unlimited and for nothing

offerings:
  - name: {name}
    waldur_api_url: {url}
    # The token is in the file "environment" beside this one; systemd units read it from there.
    waldur_api_token: ${{{variable}}}
    waldur_offering_uuid: {uuid}
    # ca_file: /etc/ssl/certs/site-ca.pem     # certificate authority of Waldur, if not the system's

    # Which backend does which job; a job without a backend is not done.
    order_processing_backend: {backend}  # accounts and limits, as ordered
    membership_sync_backend: {backend}  # members of the accounts, as the projects' teams are
    reporting_backend: {backend}  # usage

    username_management_backend: base         # usernames come from Waldur; "template" makes them
    # stomp_enabled: true                     # react to Waldur's events within seconds

"""
_SLURM = """\
    backend_settings:
      # Account names are prefix + slug. Choose before the first order: accounts keep their names.
      customer_prefix: c_
      project_prefix: p_
      allocation_prefix: hpc_
      # default_account: root                 # the account above those of customers
      # qos_paused: paused                    # QOS of a paused resource: sacctmgr add qos paused
      # qos_downscaled: limited
      # cluster: mycluster                    # if slurmdbd serves several clusters
      # slurm_bin_path: /opt/slurm/bin        # if Slurm's commands are not in PATH
      # require_system_user: true             # members wait until the operating system knows them
"""
_SLURM_COMPONENTS = """\
    # What is sold. Slurm counts TRES-minutes; unit_factor says how many make one measured_unit.
    backend_components:
      cpu:
        label: CPU
        measured_unit: k-Hours                # 1000 hours = 60000 minutes
        unit_factor: 60000
        accounting_type: limit                # the customer orders a limit
      mem:
        label: RAM
        measured_unit: GB-hours               # 1024 MiB x 60 minutes
        unit_factor: 61440
        accounting_type: limit
      # gres/gpu:
      #   label: GPU
      #   measured_unit: GPU-hours
      #   unit_factor: 60
      #   accounting_type: usage              # the customer pays what is used
"""
_MOAB = """\
    backend_settings:
      # Account names are prefix + slug. Choose before the first order: accounts keep their names.
      customer_prefix: c_
      project_prefix: p_
      allocation_prefix: a_
      # default_account: all_customers
      # mam_bin_path: /opt/mam/bin            # if the mam-* commands are not in PATH
"""
_MOAB_COMPONENTS = """\
    backend_components:
      deposit:
        label: Deposit
        measured_unit: EUR
        unit_factor: 1
        accounting_type: limit
"""
_OTHER = """\
    backend_settings:
      # what the backend needs: waldur-site-agent config reference
"""
_OTHER_COMPONENTS = """\
    # What is sold, by the backend's own names.
    backend_components: {}
"""
_BACKENDS = {"slurm": (_SLURM, _SLURM_COMPONENTS), "moab": (_MOAB, _MOAB_COMPONENTS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answers about a site's first offering, without the token."""

    name: str
    url: str
    uuid: str
    backend: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further keys of ``backend_settings``."""


def starter_file(path: str, answers: Answers) -> str:
    """The text of a working configuration file to start from."""
    settings, components = _BACKENDS.get(answers.backend, (_OTHER, _OTHER_COMPONENTS))
    head = _FILE.format(
        path=path,
        name=_quoted(answers.name),
        url=_quoted(answers.url),
        uuid=_quoted(answers.uuid),
        backend=answers.backend,
        variable=TOKEN_VARIABLE,
    )
    for key, value in answers.settings.items():
        settings = "".join(line for line in settings.splitlines(True) if not _is_about(line, key))
        settings += f"      {key}: {_quoted(value)}\n"
    return "".join(map(_aligned, f"{head}{settings}\n{components}".splitlines(keepends=True)))


def _aligned(line: str) -> str:
    """The line with its comment aligned."""
    code, sign, comment = line.partition("_backend: ")
    if not sign or code.lstrip().startswith("username"):
        return line
    value, _, comment = comment.partition("  # ")
    return f"{code}{sign}{value}".ljust(46) + f"# {comment}"


def _is_about(line: str, key: str) -> bool:
    return line.lstrip(" #").startswith(f"{key}:")


def _quoted(text: str) -> str:
    """A YAML scalar on one line for any text; JSON strings are valid YAML."""
    return json.dumps(text, ensure_ascii=False)


def environment_line(token: str) -> str:
    """The line of an environment file, readable by systemd and by a shell.

    Raises:
        ValueError: the token has a character that the two read differently.
    """
    if "'" in token or "\\" in token:
        raise ValueError("the token contains a quote or a backslash, which no token has")
    plain = all(sign.isalnum() or sign in "-._~+/=:@" for sign in token)
    return f"{TOKEN_VARIABLE}={token}\n" if plain else f"{TOKEN_VARIABLE}='{token}'\n"
