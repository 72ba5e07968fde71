#!/bin/sh
# Boots systemd in a root directory with namespaces and a cgroup of its own, runs a command there as a
# unit, and takes everything down again, also after Ctrl+C:
#
#   machine.sh ROOT [OPTION OF systemd-run]... COMMAND...
#
# The machine has no network but its loopback, its own /run, /tmp, /dev and host name, and sees no
# process outside. Needs root and a mounted cgroup2 file system; WSA_SYSTEMD_CGROUP is the directory
# of its cgroup (a new one). Exits with the command's code, or with 3 if systemd does not start.
set -eu
root=$1
shift

if [ "${WSA_MACHINE:-}" = inside ]; then # the first process in the namespaces: becomes systemd
    mkdir -p "$root/.machine"
    mount --bind "$root" "$root/.machine"
    cd "$root/.machine"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    mount -t tmpfs -o mode=755 tmpfs dev
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mknod -m 666 dev/null c 1 3
    mknod -m 666 dev/zero c 1 5
    mknod -m 666 dev/full c 1 7
    mknod -m 666 dev/random c 1 8
    mknod -m 666 dev/urandom c 1 9
    mknod -m 666 dev/tty c 5 0
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    hostname wsa-systemd
    ip link set lo up
    ip address add 192.0.2.1/32 dev lo # some programs ignore 127.0.0.1 when they look for an address
    mkdir -p oldroot
    pivot_root . oldroot
    umount -l /oldroot
    # credentials are mounted for a service from the outside: a private root would not pass them on
    mount --make-rshared /
    # neither kernel nor clock belong to this machine
    exec env -i container=wsa PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog /usr/lib/systemd/systemd
fi

hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
cgroup=${WSA_SYSTEMD_CGROUP:-$hierarchy/waldur-site-agent-$$}
systemd=

finish() {
    trap '' INT TERM HUP
    [ -z "$systemd" ] || kill -KILL "$systemd" 2>/dev/null || true
    wait
    for _ in $(seq 100); do
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -d "$cgroup" ] || break
        sleep 0.1
    done
}
inside() {
    nsenter --target "$systemd" --mount --pid --cgroup --uts --net --ipc -- env -i \
        HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$cgroup"
log=$root/var/log/machine.log
# shellcheck disable=SC2016
WSA_MACHINE=inside setsid sh -c 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"' - "$cgroup" \
    setpriv --pdeathsig KILL \
    unshare --mount --pid --cgroup --uts --net --ipc --fork --kill-child --propagation private \
    "$0" "$root" </dev/null >"$log" 2>&1 &
outside=$!
state=
for _ in $(seq 600); do
    systemd=$(cat "/proc/$outside/task/$outside/children" 2>/dev/null || true)
    systemd=${systemd% }
    [ -z "$systemd" ] || state=$(inside systemctl is-system-running 2>/dev/null || true)
    case $state in running | degraded) break ;; esac
    kill -0 $outside 2>/dev/null || break
    sleep 0.1
done
case $state in
running | degraded) ;;
*)
    echo "systemd did not start (${state:-no answer}):" >&2
    cat "$log" >&2
    exit 3
    ;;
esac
inside systemd-run --quiet --pipe --wait --collect "$@"
