#!/bin/sh
# Runs the demo with what it can show on this machine: a RabbitMQ of its own where one can be started,
# and a real Slurm with SLURM=real. Stops what it started.
#
#   demo.sh COMMAND...    the demo's command, such as .venv/bin/waldur-site-agent demo
set -u

here=$(dirname "$0")
log=$(mktemp)
broker=
cluster=

stop() {
    [ -z "$broker" ] || "$here/rabbitmq/down.sh" >/dev/null 2>&1
    [ -z "$cluster" ] || "$here/slurm/down.sh"
    rm -f "$log"
}
trap stop EXIT
trap 'exit 130' INT TERM

if [ "${BACKEND:-}" != moab ]; then
    WSA_RABBITMQ_DIR=${WSA_RABBITMQ_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-demo-rabbitmq}
    WSA_RABBITMQ_PORT=${WSA_RABBITMQ_PORT:-27917}
    export WSA_RABBITMQ_DIR WSA_RABBITMQ_PORT
    if "$here/rabbitmq/up.sh" >"$log" 2>&1; then
        broker=started
        export DEMO_BROKER_PORT="$WSA_RABBITMQ_PORT"
    else
        DEMO_BROKER_REASON="RabbitMQ could not be started ($(tail -n 1 "$log"))"
        export DEMO_BROKER_REASON
    fi
fi
if [ "${SLURM:-}" = real ]; then
    settings=$("$here/slurm/up.sh") || exit 1
    cluster=started
    export "${settings?}"
fi
"$@"
