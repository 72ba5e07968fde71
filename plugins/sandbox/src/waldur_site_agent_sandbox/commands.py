"""The commands that this distribution adds to ``waldur-site-agent``."""

from __future__ import annotations

import os
import sys

import click


@click.command("demo")
@click.option("--keep", is_flag=True, help="Keep the sandbox running at the end, to look around.")
def demo_command(keep: bool) -> None:
    """Watch orders become Slurm accounts: an embedded Waldur and a simulated cluster.

    With BACKEND=moab in the environment, accounts and deposits of a simulated MOAB.
    """
    # imported here: each needs a plugin that the other does without
    if os.environ.get("BACKEND", "slurm") == "moab":
        from waldur_site_agent_sandbox.demo.moab import demo_moab  # noqa: PLC0415

        sys.exit(demo_moab(keep=keep))
    from waldur_site_agent_sandbox.demo import demo  # noqa: PLC0415

    sys.exit(demo(keep=keep))


@click.command(
    "sandbox",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sandbox_command(arguments: tuple[str, ...]) -> None:
    """Serve a small Waldur in memory, to try a configuration against."""
    from waldur_site_agent_sandbox.__main__ import main  # noqa: PLC0415 - demo does without it

    sys.exit(main(list(arguments)))
