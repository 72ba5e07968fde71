"""The commands ``demo`` and ``sandbox``, which this distribution adds to ``waldur-site-agent``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from waldur_site_agent_sandbox.sandbox import Sandbox
from waldur_site_agent_sandbox.server import bound_socket, server_for

_BROKER_USER = "SANDBOX_BROKER_USER"
_BROKER_PASSWORD = "SANDBOX_BROKER_PASSWORD"  # noqa: S105  # the name of a variable


def serve(arguments: list[str], program: str) -> int:
    """Serve until Ctrl+C.

    Args:
        arguments: The command line without the program.
        program: The name of the program in its usage.

    Returns:
        The exit code: 0 after Ctrl+C, 2 for invalid arguments or a port in use.
    """
    chosen = _parser(program).parse_args(arguments)
    try:
        sandbox = Sandbox(chosen.version, state_file=chosen.state)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 2
    try:
        listener = bound_socket(chosen.host, chosen.port)
    except OSError as error:
        sys.stderr.write(
            f"sandbox: cannot serve at {chosen.host}:{chosen.port}: {error.strerror}; "
            "--port 0 takes any free port\n"
        )
        return 2
    if chosen.broker:
        sandbox.attach_broker(
            chosen.broker,
            os.environ.get(_BROKER_USER, "guest"),
            os.environ.get(_BROKER_PASSWORD, "guest"),
            host=urlsplit(chosen.broker).hostname or "127.0.0.1",
            stomp_port=chosen.stomp_port,
            mqtt_port=chosen.mqtt_port,
        )
    if chosen.demo and not sandbox.customer.world.projects:
        sandbox.fill_demo()
    host, port = listener.getsockname()[:2]
    sys.stdout.write(_welcome(sandbox, f"http://{host}:{port}"))
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        server_for(sandbox.app).run(sockets=[listener])
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="A small Waldur in memory, to try an agent's configuration against.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port, 0 for any (%(default)s)")
    parser.add_argument("--version", default="8.1.3", help="act as this release (%(default)s)")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="keep all data, including tokens, in this file"
    )
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="publish events over the RabbitMQ with this management interface, such as"
        f" http://127.0.0.1:15672; set {_BROKER_USER} and {_BROKER_PASSWORD} in the environment to"
        " its administrator's login (guest, guest)",
    )
    parser.add_argument(
        "--stomp-port", type=int, default=61613, help="its STOMP port (%(default)s)"
    )
    parser.add_argument("--mqtt-port", type=int, help="its MQTT port; without it, no MQTT")
    parser.add_argument("--demo", action="store_true", help="start with projects and orders")
    return parser


def _welcome(sandbox: Sandbox, address: str) -> str:
    projects = sandbox.customer.world.projects.values()
    project = next((row.slug for row in projects), "SLUG")
    first = "" if projects else "\nNo project exists yet: start with --demo or create one first.\n"
    return f"""\
Waldur sandbox, acting as {sandbox.server_version}; press Ctrl+C to stop.

  waldur_api_url:       {address}/api/
  waldur_api_token:     {sandbox.token}
  waldur_offering_uuid: {sandbox.offering.uuid}
{first}
Let the agent write a configuration for it, with a simulated Slurm (docs/start.md):
  echo {sandbox.token} | waldur-site-agent init -c sandbox/config.yaml \\
    --token-file - --waldur-url {address} \\
    --offering-uuid {sandbox.offering.uuid} \\
    --name Sandbox --backend slurm --setting slurm_bin_path="$PWD/sandbox/slurm" \\
    --setting require_system_user=false --setting enable_user_homedir_account_creation=false

Order a resource:
  curl -X POST {address}/sandbox/place_create_order/ \\
    -d '{{"project": "{project}", "name": "First try", "limits": {{"cpu": 10, "mem": 20}}}}'

See the result, and what else you can do:
  curl {address}/sandbox/world/
  curl {address}/sandbox/
"""


@click.command("demo")
@click.option("--keep", is_flag=True, help="Keep the sandbox running at the end, to look around.")
def demo_command(keep: bool) -> None:
    """Observer orders become Slurm accounts: an embedded Waldur and a simulated cluster.

    With BACKEND=moab in the environment, accounts and deposits of a simulated MOAB.
    """
    # imported here: each needs a plugin that the other does without
    if os.environ.get("BACKEND", "slurm") == "moab":
        from waldur_site_agent_sandbox.demo.moab import demo_moab  # noqa: PLC0415

        sys.exit(demo_moab(keep=keep))
    from waldur_site_agent_sandbox.demo.slurm import demo_slurm  # noqa: PLC0415

    sys.exit(demo_slurm(keep=keep))


@click.command(
    "sandbox",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def sandbox_command(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Serve a small Waldur in memory, to try a configuration against."""
    sys.exit(serve(list(arguments), context.command_path))
