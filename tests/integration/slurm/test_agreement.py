"""The simulator and a real Slurm are told the same, and must answer the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_slurm.simulator.state import RELEASES

if TYPE_CHECKING:
    from integration.conftest import RealSlurm

COLUMNS = "cluster,account,parentname,user,partition,qos,defaultqos,grptresmins,descr,org"
READ = f"account withassoc wopl format={COLUMNS}"

SCRIPTS = {
    "accounts": """
        add account name=PACust parent=root description=Some Ünï|text organization=PACust
        add account name=PACust parent=root description=x organization=y
        add account name=PAproj,PACust parent=PAcust organization=PAproj GrpTRESMins=cpu=5,mem=1536
        add account name=PAnone parent=PAmissing
        add account name=PAnone parent=root description= organization=o
        add account name=PAnone bogus=1
        add account name= parent=root
        add account name=PAbr[1-2],PAq parent=PAcust
        add account name=PAon parent=root cluster=nosuch
        modify account where name=PAnosuch set GrpTRESMins=cpu=1
    """,
    "limits": """
        add account name=PA parent=root organization=o GrpTRESMins=mem=204800,cpu=10240,gres/gpu=3
        modify account where name=PA,PAnosuch set GrpTRESMins=node=4,cpu=7
        modify account where name=PA set GrpTRESMins=cpu=-1
        modify account where name=PA set GrpTRESMins=cpu=-1
        modify account where name=PA set GrpTRESMins=nosuch=5
        modify account where name=PA set GrpTRESMins=mem=1049088
        modify account where name=PA set GrpTRESMins=mem=1572864,cpu=0
        modify account where name=PA set GrpTRESMins=mem=1099511627775
        modify account where name=PA set GrpTRESMins=cpu=18446744073709551613
        modify account where name=PA set GrpTRESMins=cpu=18446744073709551614
        modify account where name=PA set GrpTRESMins=billing=1K
        modify account where name=PA set qos=limited
        modify account where name=PA set qos=nosuch
    """,
    "users": """
        add account name=PA,PAb parent=root organization=o
        add user name=PU1,PU2 account=root DefaultAccount=root MaxSubmitJobs=0
        add user name=PU1,PU3 account=PA
        add user name=PU1,PU3 account=PA
        add user name=PU1,PU4 account=PA
        add user name=PU1 account=PAnosuch
        add user name=PU5 account=PA DefaultAccount=PAnosuch
        add user name=PU5 account=PA DefaultAccount=PAb
        modify user where name=PU1,PU3 set DefaultAccount=PAb
        modify user where name=PU1 set DefaultAccount=PA
        modify user where name=PUnosuch set DefaultAccount=PA
        remove user where name=PU1,PUnosuch account=PA
        remove user where name=PU1 account=PA
        remove user where name=PU1,PU2 account=root
        remove user where name=PU3,PU4 account=PA
        remove user where name=PU5 account=PA,PAb
    """,
    "access": """
        add account name=PA,PAb parent=root organization=o
        add user name=PU1,PU2 account=PA
        modify account where name=PA,PAb set qos=paused DefaultQOS=paused
        modify account where name=PA set qos=normal,limited DefaultQOS=limited
        modify account where name=PA set qos=normal DefaultQOS=limited
        modify account where name=PA set qos=paused
        modify account where name=PA set qos=normal DefaultQOS=nosuch
        modify account where name=PA,PAb set qos= DefaultQOS=-1
        modify user where name=PU1 account=PA set qos=limited,normal DefaultQOS=limited
        modify account where name=PA set qos=paused DefaultQOS=paused
        modify account where name=PA,PAb set qos=paused DefaultQOS=paused
        modify user where name=PU1 account=PA set qos= DefaultQOS=-1
        modify account where name=PA,PAb set qos=paused DefaultQOS=paused
        modify user where name=PU1,PUnosuch account=PA set qos=normal DefaultQOS=normal
        modify user where name=PU2 account=PA set DefaultQOS=normal
        modify user where name=PUnosuch account=PA set qos=normal DefaultQOS=normal
    """,
    "moves": """
        add account name=PAca,PAcb parent=root organization=o
        add account name=PAp parent=PAca organization=PAp
        add account name=PA,PAb parent=PAp organization=PAp
        add user name=PU1,PU2 account=PA
        modify account where name=PA set parent=PAcb
        modify account where name=PAb set parent=PAcb
        modify account where name=PAp set parent=PAcb
        modify account where name=PA set parent=PAp
        modify account where name=PAb set parent=PAp
        modify account where name=PAnosuch set parent=PAca
        modify account where name=PAb set parent=PAmissing
    """,
    "default accounts": """
        add account name=PA,PAb,PAc parent=root organization=o
        add user name=PU1,PU2,PU3 account=PA
        add user name=PU1,PU3 account=PAb
        add user name=PU3 account=PAc DefaultAccount=PAc
        show user name=PU1,PU2,PU3 format=user,defaultaccount
        remove user where name=PU1,PU2,PU3 account=PA
        remove user where name=PU2,PU3 account=PA
        show user name=PU1,PU2,PU3 format=user,defaultaccount
        remove user where name=PU3 account=PAc
        remove user where name=PU3 account=PAb,PAc
        add user name=PU4 account=PAb,PAc
        remove user where name=PU4 account=PAc
        remove account where name=PA
        remove account where name=PA,PAb
        show user name=PU1,PU2,PU3,PU4 format=user,defaultaccount
    """,
    "lists of members": """
        add account name=PA parent=root organization=o
        add user name=PU1,PU2,PU3 account=PA
        modify user where name=PU1 account=PA set qos=paused
        modify account where name=PA set qos=limited DefaultQOS=limited
        modify user where name=PU1 account=PA set qos=
        modify account where name=PA set qos=limited DefaultQOS=limited
        modify user where name=PU1 account=PA set qos=paused
        modify user where name=PU1 account=PA set qos=paused DefaultQOS=paused
        modify user where name=PU3 account=PA set qos=paused,limited
        modify account where name=PA set qos=normal,limited
        modify account where name=PA set qos=normal DefaultQOS=normal
        modify account where name=PA set DefaultQOS=-1
        modify account where name=PA set qos=paused,limited DefaultQOS=limited
    """,
    "limits of members": """
        add account name=PA,PAb parent=root organization=o
        add user name=PU1,PU2 account=PA
        add user name=PU1 account=PAb
        modify user where name=PU1,PU2,PUnosuch account=PA set GrpTRESMins=cpu=60,mem=2048
        modify user where name=PU2 account=PA set GrpTRESMins=cpu=-1,mem=1049088
        modify user where name=PU2 account=PAb set GrpTRESMins=cpu=5
        modify user where name=PU1 account=PA set GrpTRESMins=nosuch=5
        modify user where name=PU1 account=PA set GrpTRESMins=cpu=-1,mem=-1
    """,
    "partitions": """
        add account name=PA,PAb parent=root organization=o
        add user name=PU1 account=PA partition=main
        add user name=PU2 account=PA
        add user name=PU2 account=PA partition=main
        add user name=PU2 account=PA partition=main
        add user name=PU3 account=PAb
        add user name=PU3 account=PA partition=main
        modify user where name=PU1,PU2 account=PA set GrpTRESMins=cpu=7
        remove user where name=PU2 account=PA
        remove user where name=PU3 account=PA
        remove user where name=PU1 account=PA
        remove user where name=PU2
    """,
    "grants to new members": """
        add account name=PA,PAb parent=root organization=o
        add user name=PU1 account=PA partition=main,debug qoslevel=normal,paused defaultqos=paused
        add user name=PU3 account=PA qoslevel=normal defaultqos=limited
        add user name=PU4 account=PA qoslevel=normal defaultqos=nosuch
        add user name=PU4 account=PA qoslevel=nosuch
        add user name=PU4 account=PA qoslevel=paused
        add user name=PU4 account=PAb partition=main qoslevel=paused MaxSubmitJobs=4
        add user name=PU5,PU6 account=PA fairshare=parent
    """,
    "removal": """
        add account name=PA parent=root organization=o
        add account name=PAb,PAc parent=PA organization=PA
        add user name=PU1 account=PAb
        add user name=PU1 account=PAc
        remove account where name=PAnosuch
        remove account where name=PAb,PAnosuch
        remove account where name=PA
        add account name=PAc parent=root description=x organization=other
        remove account where name=PAc
        remove account where name=PAc
    """,
    "coordinators": """
        add account name=PA parent=root organization=o
        add account name=PAb parent=PA organization=PA
        add account name=PAc parent=PAb organization=PA
        add user name=PU1,PU2 account=PA
        add user name=PU1 account=PAb
        add user name=PU1,PU2 account=root
        add coordinator account=PAb,PA names=PU2,PU1
        add coordinator account=PAb names=PU1
        show account withcoord name=PA,PAb,PAc format=account,coordinators
        remove coordinator where account=PA names=PU1
        show account withcoord name=PA,PAb,PAc format=account,coordinators
        remove coordinator where account=PAb,PAc names=PU1,PU2
        remove coordinator where account=PAc names=PU2
        show account withcoord name=PA,PAb,PAc format=account,coordinators
        add coordinator account=PAnosuch names=PU1
        remove coordinator where account=PA names=PUnosuch
        remove user where name=PU2 account=PA
        show account withcoord name=PA,PAb,PAc format=account,coordinators
        remove account where name=PAc
        add account name=PAc parent=PAb organization=PA
        show account withcoord name=PA,PAb,PAc format=account,coordinators
        remove user where name=PU2
        show account withcoord name=PA,PAb,PAnosuch format=account,coordinators
    """,
    "administrators": """
        add account name=PA parent=root organization=o
        add user name=PU1 account=PA adminlevel=operator
        add user name=PU2 account=root DefaultAccount=root adminlevel=administrator
        show user name=PU1,PU2 format=user,defaultaccount,adminlevel
        remove user where name=PU1 account=PA
        show user name=PU1 format=user,defaultaccount,adminlevel
        add user name=PU1 account=PA adminlevel=operator
        add user name=PU1 account=root DefaultAccount=root MaxSubmitJobs=0
        show user name=PU1 format=user,defaultaccount,adminlevel
        remove user where name=PU1 account=PA
        show user name=PU1 format=user,defaultaccount,adminlevel
    """,
    "in a named cluster": """
        add account name=PA parent=root cluster=CLUSTER organization=o
        add user name=PU1 account=PA cluster=CLUSTER
        modify account where name=PA cluster=CLUSTER set GrpTRESMins=cpu=4
        remove user where name=PU1 account=PA cluster=CLUSTER
        remove account where name=PA cluster=CLUSTER
        remove account where name=PA cluster=CLUSTER
    """,
    "misunderstandings": """
        add qux name=1
        show account format=bogus
        show qos name=normal,PAnosuch format=name,usagefactor
        show user name=PUnosuch format=adminlevel
    """,
}


def like(real_slurm: RealSlurm) -> SimulatedSlurm:
    """A simulated cluster of the version that the real one has."""
    said = real_slurm.run("sacctmgr", "-V").stdout
    known = [version for version in RELEASES if f" {version}." in said]
    assert known, f"no version of the simulator answers as this Slurm does: {said}"
    return SimulatedSlurm(cluster="wsatest", version=known[0])


@pytest.mark.slurm
@pytest.mark.parametrize("script", SCRIPTS)
def test_both_answer_alike(real_slurm: RealSlurm, prefix: str, script: str) -> None:
    simulated = like(real_slurm)
    for line in SCRIPTS[script].strip().splitlines():
        argv = ["sacctmgr", "-i", *_words(line, prefix)]
        if argv[2] == "show":
            argv[1:2] = ["-P", "-n"]
        result = real_slurm.run(*argv)
        real = (result.returncode, _plain(result.stdout), _plain(result.stderr))
        code, out, err = simulated.run(argv)
        assert real == (code, _plain(out), _plain(err)), argv
        assert _rows(real_slurm, prefix) == _simulated_rows(simulated, prefix), argv


@pytest.mark.slurm
def test_both_list_members_in_the_same_order(real_slurm: RealSlurm, prefix: str) -> None:
    simulated = like(real_slurm)
    for line in (
        "add account name=PA,PAb parent=root",
        "add user name=PUz,PUa,PUm account=PA",
        "add user name=PU3 account=PAb",
        "add user name=PU3,PU0 account=PA",
    ):
        argv = ["sacctmgr", "-i", *_words(line, prefix)]
        assert real_slurm.run(*argv).returncode == simulated.run(argv)[0] == 0
    for entity in ("account withassoc", "assoc"):
        asked = ("sacctmgr", "-P", "-n", "show", *entity.split(), "wopl", "format=account,user")
        real, shown = real_slurm.run(*asked).stdout, simulated.run(asked)[1]
        ours = [[row for row in out.splitlines() if prefix in row] for out in (real, shown)]
        assert len(ours[0]) == 8
        assert ours[0] == ours[1]


@pytest.mark.slurm
def test_both_list_and_cancel_jobs_alike(real_slurm: RealSlurm, prefix: str) -> None:
    simulated = like(real_slurm)
    user = real_slurm.users[0]
    for words in (
        ("add", "account", f"name={prefix}", "parent=root", "organization=o"),
        ("add", "user", f"name={user}", f"account={prefix}"),
    ):
        real_slurm.run("sacctmgr", "-i", *words)
        simulated.run(["sacctmgr", "-i", *words])
    job = real_slurm.submit_job(user, prefix)
    simulated.submit_job(user, prefix)
    for argv in (
        ("squeue", "-h", "-A", f"{prefix},nosuch", "-o", "%a|%u"),
        ("sacctmgr", "-i", "remove", "user", "where", f"name={user}", f"account={prefix}"),
        ("sacctmgr", "-i", "remove", "account", "where", f"name={prefix}"),
        ("scancel", "999999"),
        ("scancel", "-A", "nosuch"),
        ("squeue", "-h", "-A", "nosuch", "-o", "%A|%a|%u"),
    ):
        result = real_slurm.run(*argv)
        code, out, err = simulated.run(argv)
        real = (result.returncode, _plain(result.stdout), _numberless(result.stderr, job))
        assert real == (code, _plain(out), _numberless(err, "1")), argv


def _words(line: str, prefix: str) -> list[str]:
    """Cut at blanks that start a new ``key=value`` or keyword; stand-ins become names."""
    text = line.strip().replace("CLUSTER", "wsatest")
    text = text.replace("PA", prefix).replace("PU", f"{prefix}u")
    return re.split(r" (?=\S+=|where |set |account |user |qos |qux |coordinator |withcoord )", text)


def _plain(text: str) -> list[str]:
    """Lines without what differs for a reason: order, and names cut to the width of a column."""
    return sorted(" ".join(line.split()) for line in text.splitlines())


def _numberless(text: str, job: str) -> list[str]:
    return [line.replace(f"= {job} ", "= N ") for line in _plain(text)]


def _rows(real_slurm: RealSlurm, prefix: str) -> list[str]:
    shown = real_slurm.run("sacctmgr", "-P", "-n", "show", *READ.split()).stdout
    return _ours(shown, prefix)


def _simulated_rows(simulated: SimulatedSlurm, prefix: str) -> list[str]:
    return _ours(simulated.run(["sacctmgr", "-P", "-n", "show", *READ.split()])[1], prefix)


def _ours(output: str, prefix: str) -> list[str]:
    return sorted(row for row in output.splitlines() if f"|{prefix}" in row)
