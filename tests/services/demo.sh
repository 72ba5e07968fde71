#!/bin/sh
# Runs the demo with what it can show on this machine: a RabbitMQ of its own where one can be started,
# and a real Slurm with SLURM=real. Stops what it started, also after Ctrl+C, and removes the
# directories and users that it made.
#
#   demo.sh COMMAND...    the demo's command, such as .venv/bin/waldur-site-agent demo
export WSA_SLURM_REMOVE_USERS=1
set -u

here=$(dirname "$0")
log=$(mktemp)
broker=
cluster=
purge_broker=
purge_cluster=
interrupted=

stop() {
    trap '' INT TERM HUP PIPE
    # word splitting is wanted: --purge, or nothing
    # shellcheck disable=SC2086
    [ -z "$broker" ] || "$here/rabbitmq/down.sh" $purge_broker >/dev/null 2>&1
    # shellcheck disable=SC2086
    [ -z "$cluster" ] || "$here/slurm/down.sh" $purge_cluster
    rm -f "$log"
}
trap stop EXIT
trap 'interrupted=1' INT TERM HUP PIPE

# start COMMAND: out of reach of Ctrl+C, because a service that is half started has no pid file yet;
# the shell sees the signal when the command has ended
start() {
    setsid -w "$@"
}

go_on() {
    [ -z "$interrupted" ] || { echo "stopped" >&2; exit 130; }
}

if [ "${BACKEND:-}" != moab ]; then
    WSA_RABBITMQ_DIR=${WSA_RABBITMQ_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-demo-rabbitmq}
    WSA_RABBITMQ_PORT=${WSA_RABBITMQ_PORT:-27917}
    export WSA_RABBITMQ_DIR WSA_RABBITMQ_PORT
    echo "Starting a RabbitMQ for the last scene; Ctrl+C takes effect when it has started." >&2
    [ -e "$WSA_RABBITMQ_DIR" ] || purge_broker=--purge
    broker=perhaps
    if start "$here/rabbitmq/up.sh" >"$log" 2>&1; then
        export DEMO_BROKER_PORT="$WSA_RABBITMQ_PORT"
    else
        DEMO_BROKER_REASON="RabbitMQ could not be started ($(tail -n 1 "$log"))"
        export DEMO_BROKER_REASON
    fi
    go_on
fi
if [ "${SLURM:-}" = real ]; then
    echo "Starting a Slurm; Ctrl+C takes effect when it has started." >&2
    WSA_SLURM_DIR=${WSA_SLURM_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-demo-slurm}
    WSA_SLURM_PORT=${WSA_SLURM_PORT:-26917}
    export WSA_SLURM_DIR WSA_SLURM_PORT
    [ -e "$WSA_SLURM_DIR" ] || purge_cluster=--purge
    cluster=perhaps
    start "$here/slurm/up.sh" >"$log" || exit 1
    settings=$(cat "$log")
    export "${settings?}"
    go_on
fi
"$@"
code=$?
[ -z "$interrupted" ] || code=130
exit "$code"
