#!/bin/sh
# Stops what up.sh started, by its pid files alone. With --purge also removes its directory.
set -u

SERVICE=rabbitmq
DIR=${WSA_RABBITMQ_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-rabbitmq}
. "$(dirname "$0")/../common.sh"

for daemon in beam.smp epmd; do stop $daemon; done

if [ "${1:-}" = --purge ] && grep -q 'RABBITMQ_NODENAME=wsatest@' "$DIR/etc/environment" 2>/dev/null; then
    rm -rf "$DIR"
fi
exit 0
