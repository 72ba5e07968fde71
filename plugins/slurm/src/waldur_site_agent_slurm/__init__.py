"""Slurm backend of waldur-site-agent: facts, commands, runner, simulator."""
