"""``sacctmgr show``: the listings that the agent and people ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from waldur_site_agent.backends.simulation import Answer, RefusedError
from waldur_site_agent_slurm.simulator.limits import printed
from waldur_site_agent_slurm.simulator.request import lowered, names
from waldur_site_agent_slurm.simulator.state import SimAccount, SimJob, SimMembership, SimState

Row: TypeAlias = dict[str, str]

_TITLES = {
    "cluster": "Cluster", "account": "Account", "parentname": "Par Name", "user": "User",
    "qos": "QOS", "defaultqos": "Def QOS", "grptresmins": "GrpTRESMins", "org": "Org",
    "descr": "Descr", "defaultaccount": "Def Acct", "adminlevel": "Admin", "type": "Type",
    "name": "Name", "coordinators": "Coord Accounts", "maxsubmit": "MaxSubmit",
    "partition": "Partition", "grpsubmit": "GrpSubmit",
    "usagefactor": "UsageFactor", "flags": "Flags", "grptres": "GrpTRES", "grpjobs": "GrpJobs",
    "maxjobspu": "MaxJobsPU", "maxsubmitpu": "MaxSubmitPU", "maxjobspa": "MaxJobsPA",
    "maxsubmitpa": "MaxSubmitPA", "maxtres": "MaxTRES", "maxtrespu": "MaxTRESPU",
    "mintres": "MinTRES", "maxwall": "MaxWall", "lineage": "Lineage",
    "fairshare": "Share", "maxtresmins": "MaxTRESMins",
}  # fmt: skip
_DEFAULT_COLUMNS = {
    "account": ("account", "descr", "org"),
    "assoc": ("cluster", "account", "user", "grptresmins", "qos"),
    "user": ("user", "defaultaccount", "adminlevel"),
    "qos": ("name",),
    "tres": ("type", "name"),
    "cluster": ("cluster",),
}
_SAME = {
    "associations": "assoc", "association": "assoc", "accounts": "account", "users": "user",
    "clusters": "cluster",
}  # fmt: skip
_ALIASES = {
    "description": "descr", "organization": "org", "parent": "parentname", "admin": "adminlevel",
    "maxsubmitjobs": "maxsubmit", "grpsubmitjobs": "grpsubmit",
}  # fmt: skip


def show(state: SimState, entity: str, words: Sequence[str], switches: Sequence[str]) -> Answer:
    """Answer ``sacctmgr show ENTITY``."""
    entity = _SAME.get(entity.lower(), entity.lower())
    if entity not in _DEFAULT_COLUMNS:
        raise RefusedError(Answer(1, "", f"No valid entity in list command\n {entity}\n"))
    options = {w.partition("=")[0].lower(): w.partition("=")[2] for w in words if "=" in w}
    flags = {w.lower() for w in words if "=" not in w}
    columns = _columns(options.get("format"), _DEFAULT_COLUMNS[entity])
    if "lineage" in columns and not state.is_24_11:
        raise RefusedError(Answer(1, "", "Unknown field 'lineage'\n"))
    rows = _chosen(_rows(state, entity, flags, options), entity, options)
    lines = [] if "-n" in switches else [[_TITLES[column] for column in columns]]
    lines += [[row.get(column, "") for column in columns] for row in rows]
    return Answer(0, _parsable(lines) if "-P" in switches else _aligned(lines))


def _columns(text: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if text is None:
        return default
    asked = tuple(_ALIASES.get(name, name) for name in text.lower().split(","))
    for name in asked:
        if name.partition("%")[0] not in _TITLES:
            raise RefusedError(Answer(1, "", f"Unknown field '{name}'\n"))
    return tuple(name.partition("%")[0] for name in asked)


def _rows(state: SimState, entity: str, flags: set[str], options: Row) -> Iterable[Row]:
    raw = "wopl" in flags
    if entity == "account":
        accounts = sorted(state.accounts.values(), key=lambda account: account.name)
        with_members = bool(flags & {"withassoc", "assoc"})
        elsewhere = options.get("cluster", state.cluster).lower() != state.cluster
        coordinators = "withcoord" in flags
        return _account_rows(
            state,
            accounts,
            raw=raw,
            full=with_members,
            elsewhere=elsewhere,
            coordinators=coordinators,
            newest_first=not state.is_24_11,
        )
    if entity == "assoc":
        accounts = state.below("root")
        if "withsubaccounts" in flags:
            named = names(options.pop("account", ""))
            below = {a.name for name in named if name in state.accounts for a in state.below(name)}
            accounts = [account for account in accounts if account.name in below]
        return _account_rows(state, accounts, raw=raw, full=True, elsewhere=False)
    if entity == "user":
        return _user_rows(state, with_accounts="withassoc" in flags)
    if entity == "qos":
        return [
            {
                "name": name,
                "descr": name,
                "usagefactor": f"{state.usage_factors.get(name, 1):.6f}",
                "grptresmins": printed(state.qos_limits.get(name, {})),
                "maxtresmins": printed(state.qos_job_limits.get(name, {})),
                **state.qos_columns.get(name, {}),
            }
            for name in state.qos
        ]
    if entity == "tres":
        split = (name.partition("/") for name in state.tres)
        return [{"type": kind, "name": name} for kind, _, name in split]
    return [{"cluster": state.cluster}]


def _user_rows(state: SimState, *, with_accounts: bool) -> Iterator[Row]:
    for user in sorted(state.users.values(), key=lambda user: user.name):
        row = {
            "user": user.name,
            "defaultaccount": user.default_account,
            "adminlevel": user.admin_level,
        }
        accounts = state.accounts_of(user.name) if with_accounts else []
        for account in accounts:
            for partition in account.members[user.name].associations():
                where = {"account": account.name, "partition": partition}
                yield {**row, "cluster": state.cluster, **where}
        if not accounts:
            yield row


def _account_rows(
    state: SimState,
    accounts: Iterable[SimAccount],
    *,
    raw: bool,
    full: bool,
    elsewhere: bool,
    coordinators: bool = False,
    newest_first: bool = False,
) -> Iterable[Row]:
    for account in accounts:
        texts = {"org": account.organization, "descr": account.description}
        base = {"account": account.name, **texts}
        if coordinators:
            base["coordinators"] = ",".join(state.all_coordinators(account))
        if not full or elsewhere or not account.associated:
            yield base
            continue
        qos = ",".join(account.qos if raw else state.effective_qos(account))
        base |= {"cluster": state.cluster, "lineage": state.lineage(account)}
        yield {
            **base,
            "parentname": account.parent,
            "qos": qos,
            "defaultqos": account.default_qos,
            "grptresmins": printed(account.limits),
            "grpsubmit": "" if account.submit_limit is None else str(account.submit_limit),
            "fairshare": account.fairshare,
            "maxtresmins": printed(account.job_limits),
        }
        members = list(account.members.items()) if newest_first else sorted(account.members.items())
        yield from _member_rows(members, base, "" if raw else qos)


def _member_rows(
    members: Iterable[tuple[str, SimMembership]], base: Row, inherited_qos: str
) -> Iterable[Row]:
    rows = (
        (user, partition, membership)
        for user, membership in members
        for partition in membership.associations()
    )
    for user, partition, membership in rows:
        limit = membership.max_submit
        yield {
            **base,
            "user": user,
            "partition": partition,
            "qos": ",".join(membership.qos) or inherited_qos,
            "defaultqos": membership.default_qos,
            "grptresmins": printed(membership.limits),
            "maxsubmit": "" if limit is None else str(limit),
            "lineage": f"{base['lineage']}0-{user}/" if not membership.lost_lineage else "/lost/",
            "fairshare": membership.fairshare or "1",
        }


def _chosen(rows: Iterable[Row], entity: str, options: Row) -> list[Row]:
    """The rows that the options ask for."""
    name_column = {"account": "account", "user": "user", "qos": "name"}.get(entity, "name")
    wanted: list[tuple[str, frozenset[str]]] = []
    for key, value in options.items():
        column = name_column if key in ("name", "names") else _ALIASES.get(key, key)
        if column not in ("format", "cluster") and column in _TITLES:
            wanted.append((column, frozenset(names(value) if value else [""])))
    return [
        row
        for row in rows
        if all(lowered(row.get(column, "")) in values for column, values in wanted)
    ]


def _parsable(lines: Iterable[Sequence[str]]) -> str:
    return "".join("|".join(line) + "\n" for line in lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "".join(
        " ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def account_of(state: SimState, account: SimAccount) -> str:
    """An account's association in a report."""
    return f"  C = {state.cluster:<10} A = {account.name:<10} of {account.parent:<10}".rstrip()


def member_of(state: SimState, account: str, user: str, partition: str = "") -> str:
    """A user's association in a report."""
    of_partition = f" P = {partition}" if partition else ""
    return f"  C = {state.cluster:<10} A = {account:<10} U = {user:<9}{of_partition}"


def active_jobs(state: SimState, jobs: Sequence[SimJob]) -> str:
    """The refusal to remove what jobs are using."""
    lines = [" Error with request: Job(s) active, cancel job(s) before remove"]
    for job in jobs:
        where = f"C = {state.cluster:<10} A = {job.account:<10} U = {job.user:<9}"
        lines.append(f"  JobID = {job.id:<10} {where}")
    return _text(lines)


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def render_tree(state: SimState) -> str:
    """Draw the accounts with their descriptions, limits and members, one line each."""
    return "\n".join([_line(state, state.accounts["root"]), *_below(state, "root", "")])


def _below(state: SimState, name: str, indent: str) -> Iterator[str]:
    children = state.children(name)
    for child in children:
        is_last = child is children[-1]
        yield f"{indent}{'└─ ' if is_last else '├─ '}{_line(state, child)}"
        yield from _below(state, child.name, f"{indent}{'   ' if is_last else '│  '}")


def _line(state: SimState, account: SimAccount) -> str:
    parts = [account.name]
    if account.description not in ("", account.name):
        parts.append(f'"{account.description}"')
    if account.limits:
        parts.append(f"GrpTRESMins {printed(account.limits)}")
    if account.qos and account.name != "root":
        parts.append(f"QOS {','.join(account.qos)}")
    if account.members and account.name != "root":
        parts.append(f"members: {', '.join(sorted(account.members))}")
    jobs = sum(1 for job in state.jobs.values() if job.account == account.name)
    if jobs:
        parts.append(f"jobs: {jobs}")
    return "  ".join(parts)
