#!/bin/sh
# Starts a small Slurm with accounting for the integration tests: munge, MariaDB, slurmdbd,
# slurmctld and one slurmd, as root on a Debian-like machine without systemd.
#
# Everything lives below one directory and listens on 127.0.0.1 on ports of its own; a site's own
# Slurm, /etc/slurm and /etc/munge are never touched. Run again, it starts only what is not up.
#
#   WSA_SLURM_DIR    where it lives ($TMPDIR/waldur-site-agent-slurm)
#   WSA_SLURM_PORT   first of four ports (26817: slurmctld, slurmd, slurmdbd, database)
#   WSA_SLURMDBD_PARAMETERS  Parameters of slurmdbd.conf, such as PreserveCaseUser (none)
#   WSA_SLURM_USERS  how many operating-system users wsatest1, wsatest2, ... (8)
#
# Prints one line, `SLURM_CONF=...`, when the cluster is ready. `up.sh packages` prints only the names
# of the Debian packages that it needs.
set -eu

PACKAGES='munge mariadb-server slurmdbd slurmctld slurmd slurm-client slurm-wlm-mysql-plugin'
[ "${1:-}" != packages ] || { echo "$PACKAGES"; exit 0; }

SERVICE=slurm
DIR=${WSA_SLURM_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-slurm}
PORT=${WSA_SLURM_PORT:-26817}
USERS=${WSA_SLURM_USERS:-8}
CLUSTER=wsatest
MADE_HERE='waldur-site-agent test'       # down.sh removes such users
HOMES=${TMPDIR:-/tmp}/waldur-site-agent-homes       # one for all clusters, as the users are
SOCKET=$DIR/munge/socket
SQL_SOCKET=$DIR/db/socket
SLURM_CONF=$DIR/etc/slurm.conf
export SLURM_CONF

. "$(dirname "$0")/../common.sh"
[ "$(id -u)" = 0 ] || { say "must be root"; exit 2; }

write_configuration() {
    umask 022
    mkdir -p "$DIR/etc/gpus" "$DIR/log" "$DIR/run" "$DIR/munge" "$DIR/db" "$DIR/state" "$DIR/spool"
    chmod 755 "$DIR" "$DIR/munge"
    chown slurm: "$DIR/log" "$DIR/run" "$DIR/state" "$DIR/spool"
    chown munge: "$DIR/munge"
    chown mysql: "$DIR/db"
    if [ ! -s "$DIR/munge/key" ]; then
        head -c 128 /dev/urandom >"$DIR/munge/key"
        chown munge: "$DIR/munge/key"
        chmod 400 "$DIR/munge/key"
    fi
    for gpu in 0 1 2 3; do : >"$DIR/etc/gpus/gpu$gpu"; done   # any file passes for a device
    echo "NodeName=testnode Name=gpu File=$DIR/etc/gpus/gpu[0-3] AutoDetect=off" >"$DIR/etc/gres.conf"
    cat >"$DIR/etc/slurm.conf" <<CONF
ClusterName=$CLUSTER
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket=$SOCKET
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
KillWait=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
PriorityType=priority/multifactor
PriorityDecayHalfLife=0
PriorityUsageResetPeriod=MONTHLY
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 2))
AccountingStoragePass=$SOCKET
AccountingStorageEnforce=associations,limits,qos,safe
AccountingStorageTRES=gres/gpu
GresTypes=gpu
NodeName=testnode NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=64 RealMemory=64000 Gres=gpu:4
PartitionName=main Nodes=testnode Default=YES MaxTime=INFINITE State=UP
CONF
    cat >"$DIR/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$SOCKET
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
SlurmUser=slurm
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 3))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
${WSA_SLURMDBD_PARAMETERS:+Parameters=$WSA_SLURMDBD_PARAMETERS}
CONF
    chown slurm: "$DIR/etc/slurmdbd.conf"
    chmod 600 "$DIR/etc/slurmdbd.conf"
}

# the services are no root: a directory below /root is out of their reach
check_reach() {
    for user in munge mysql slurm; do
        runuser -u $user -- test -x "$DIR/log" ||
            { say "the user $user cannot reach $DIR; name another directory by WSA_SLURM_DIR"; exit 2; }
    done
}

sql() { mariadb --no-defaults -uroot -S "$SQL_SOCKET" -e "$1"; }
munge_works() { munge -n -S "$SOCKET" | unmunge -S "$SOCKET"; }
controller_is_up() { scontrol ping | grep -q 'is UP'; }
node_is_up() { sinfo -h -N -o %T | grep -Eq '^(idle|mixed|allocated)'; }

start_munge() {
    is_up munged && return 0
    rm -f "$SOCKET" "$SOCKET.lock"
    setsid runuser -u munge -- munged --force --key-file="$DIR/munge/key" --socket="$SOCKET" \
        --pid-file="$DIR/munge/pid" --log-file="$DIR/munge/log" --seed-file="$DIR/munge/seed" \
        </dev/null >>"$DIR/log/munged.out" 2>&1
    wait_until munged munge_works
    cp "$DIR/munge/pid" "$DIR/run/munged.pid"
}

start_database() {
    is_up mariadbd && return 0
    # a temporary directory of its own: databases that start side by side clean up after each other
    own="--no-defaults --user=mysql --datadir=$DIR/db/files --tmpdir=$DIR/db"
    # word splitting is wanted: one argument per option
    # shellcheck disable=SC2086
    [ -d "$DIR/db/files" ] ||
        mariadb-install-db $own --auth-root-authentication-method=normal --skip-test-db \
            >"$DIR/log/database.out" 2>&1 ||
        { say "mariadb-install-db failed; see $DIR/log/database.out"; rm -rf "$DIR/db/files"; exit 1; }
    # shellcheck disable=SC2086
    setsid mariadbd $own --socket="$SQL_SOCKET" \
        --pid-file="$DIR/db/pid" --port=$((PORT + 3)) --bind-address=127.0.0.1 --skip-name-resolve \
        --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
        --innodb-flush-log-at-trx-commit=2 </dev/null >>"$DIR/log/database.out" 2>&1 &
    wait_until mariadbd sql 'select 1'
    cp "$DIR/db/pid" "$DIR/run/mariadbd.pid"
    sql "CREATE DATABASE IF NOT EXISTS slurm_acct_db;
         CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
         GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';"
}

start_daemon() { # NAME ARGUMENTS...
    is_up "$1" || setsid "$@" </dev/null >>"$DIR/log/$1.out" 2>&1
}

make_users() {
    number=1
    while [ $number -le "$USERS" ]; do
        user=wsatest$number home=$HOMES/wsatest$number
        id "$user" >/dev/null 2>&1 || useradd -r -M -N -s /bin/sh -d "$home" -c "$MADE_HERE" "$user"
        [ "$(getent passwd "$user" | cut -d: -f6)" = "$home" ] || usermod -d "$home" "$user"
        install -d -m 700 -o "$user" -g "$(id -g "$user")" "$home"
        number=$((number + 1))
    done
}

one_at_a_time install_packages
write_configuration
check_reach
start_munge
start_database
start_daemon slurmdbd
wait_until slurmdbd sacctmgr -n -P show cluster
[ -n "$(sacctmgr -n -P show cluster format=cluster)" ] || sacctmgr -i -Q add cluster $CLUSTER >/dev/null
for qos in limited paused; do
    [ -n "$(sacctmgr -n -P show qos name=$qos format=name)" ] || sacctmgr -i -Q add qos $qos >/dev/null
done
# as at a real site: the QOS of paused accounts takes no jobs
[ "$(sacctmgr -n -P show qos name=paused format=maxsubmitjobsperuser)" = 0 ] ||
    sacctmgr -i -Q modify qos paused set MaxSubmitJobsPerUser=0 >/dev/null
start_daemon slurmctld
wait_until slurmctld controller_is_up
start_daemon slurmd -N testnode
wait_until slurmd node_is_up
one_at_a_time make_users
echo "SLURM_CONF=$SLURM_CONF"
