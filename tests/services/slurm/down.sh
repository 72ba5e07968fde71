#!/bin/sh
# Stops what up.sh started, by its pid files alone. With --purge also removes its directory and,
# unless another cluster of the tests is running, the operating-system users that up.sh made.
set -u

SERVICE=slurm
DIR=${WSA_SLURM_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-slurm}
. "$(dirname "$0")/../common.sh"

# whether a slurmctld of these tests runs; the one of a site has another name in its configuration
another_cluster() {
    for pid in $(pgrep -x slurmctld); do
        conf=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^SLURM_CONF=//p')
        ! grep -qs '^ClusterName=wsatest$' "$conf" || return 0
    done
    return 1
}

for daemon in slurmd slurmctld slurmdbd mariadbd munged; do stop $daemon; done

if [ "${1:-}" = --purge ]; then
    if [ -e "$DIR/etc/slurm.conf" ] && grep -q '^ClusterName=wsatest$' "$DIR/etc/slurm.conf"; then
        rm -rf "$DIR"
    fi
    exec 9<"${TMPDIR:-/tmp}"        # up.sh makes the users under the same lock
    flock 9
    # Only on request: of several clusters that tests share, one may be away for a moment.
    if [ -n "${WSA_SLURM_REMOVE_USERS:-}" ] && ! another_cluster; then
        getent passwd | sed -n 's/^\(wsatest[0-9]*\):.*:waldur-site-agent test:.*/\1/p' |
            while read -r user; do userdel "$user" 2>/dev/null; done
        id wsatest1 >/dev/null 2>&1 || rm -rf "${TMPDIR:-/tmp}/waldur-site-agent-homes"
    fi
fi
exit 0
