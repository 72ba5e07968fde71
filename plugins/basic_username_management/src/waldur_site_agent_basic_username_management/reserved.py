"""Names that no person gets, because a system or a program gives them a meaning of its own."""

from __future__ import annotations

_SYSTEM = """
    root toor daemon bin sys sync games man lp mail news uucp proxy backup list irc gnats nobody
    nogroup adm shutdown halt operator ftp system sudo wheel staff users disk tty kmem audio video
    systemd systemd-network systemd-resolve systemd-timesync systemd-coredump messagebus dbus
    polkitd sshd sssd chrony ntp rpc rpcuser nfsnobody nslcd ldap tss pcp postfix exim avahi
"""
_SERVICES = """
    apache nginx www www-data http mysql mariadb postgres postgresql redis rabbitmq mongodb git
    docker podman puppet ansible zabbix nagios prometheus grafana slurm munge slurmdbd
    slurmrestd torque maui moab pbs condor waldur
"""
_ROLES = """
    admin administrator hostmaster postmaster webmaster abuse security support info help guest
    test user demo anonymous
"""
_WORDS_OF_ACCOUNTING_TOOLS = "all any default none null parent"

RESERVED = frozenset(f"{_SYSTEM} {_SERVICES} {_ROLES} {_WORDS_OF_ACCOUNTING_TOOLS}".split())
"""The names reserved everywhere; a site adds its own with ``reserved_names``."""
