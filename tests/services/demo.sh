#!/bin/sh
# Runs the demo with what it can show on this machine: a RabbitMQ of its own where one can be started,
# and a real Slurm with SLURM=real. Stops what it started, also after Ctrl+C.
#
#   demo.sh COMMAND...    the demo's command, such as .venv/bin/waldur-site-agent demo
set -u

here=$(dirname "$0")
log=$(mktemp)
broker=
cluster=
interrupted=

stop() {
    trap '' INT TERM
    [ -z "$broker" ] || "$here/rabbitmq/down.sh" >/dev/null 2>&1
    [ -z "$cluster" ] || "$here/slurm/down.sh"
    rm -f "$log"
}
trap stop EXIT
trap 'interrupted=1' INT TERM

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
