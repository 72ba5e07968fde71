#!/bin/sh
# Runs a command about as confined as a service is, on a machine without systemd: the same kernel
# features, in a mount namespace of its own. What happens in it to mounts, nobody else sees.
#
#   confined.sh strict USER RUN LOG COMMAND...   as an ordinary user: no capabilities, no new
#                                                privileges, everything read-only but RUN and LOG
#   confined.sh sudo USER RUN LOG COMMAND...     the same user, who may use sudo
#   confined.sh root USER RUN LOG COMMAND...     as root with few capabilities, /usr /etc read-only
#
# RUN appears as /run/waldur-site-agent and LOG as /var/log/waldur-site-agent. Directories named in
# WSA_REACHABLE that lie in /root can be reached by the user; the rest of /root is hidden.
set -eu
if [ "${WSA_CONFINED:-}" != 1 ]; then
    WSA_CONFINED=1 exec unshare --mount --propagation private "$0" "$@"
fi
unset WSA_CONFINED
kind=$1 user=$2 run=$3 log=$4
shift 4

mkdir -p /run/waldur-site-agent /var/log/waldur-site-agent
mount --bind "$run" /run/waldur-site-agent
mount --bind "$log" /var/log/waldur-site-agent

number=0
for directory in ${WSA_REACHABLE:-}; do
    case $directory in /root/*) ;; *) continue ;; esac
    if [ $number = 0 ]; then
        mount --rbind /root /mnt
        mount -t tmpfs -o mode=755 none /root
    fi
    number=$((number + 1))
    mkdir -p "$directory"
    mount --bind "/mnt${directory#/root}" "$directory"
done
[ $number = 0 ] || umount -l /mnt

hide_processes() { mount -t proc -o hidepid=invisible proc /proc; }
read_only() { mount -o remount,bind,ro "$1"; }
case $kind in
strict)
    hide_processes
    read_only /
    exec setpriv --reuid "$user" --regid "$user" --init-groups --no-new-privs \
        --inh-caps=-all --bounding-set=-all "$@" ;;
sudo)
    exec setpriv --reuid "$user" --regid "$user" --init-groups "$@" ;;
root)
    hide_processes
    for directory in /usr /etc; do
        mount --bind $directory $directory
        read_only $directory
    done
    exec setpriv --no-new-privs --inh-caps=-all \
        --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid "$@" ;;
esac
