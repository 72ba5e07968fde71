#!/bin/sh
# Starts a RabbitMQ with management, STOMP and MQTT, the latter two over WebSocket as well, for the
# integration tests: as root on a Debian-like machine without systemd.
#
# Everything lives below one directory and listens on 127.0.0.1 on ports of its own, with an own
# port mapper (epmd); a site's own RabbitMQ is never touched, and a second instance in another
# directory on other ports runs beside it. Run again, it starts the broker only if it is not up.
#
#   WSA_RABBITMQ_DIR    where it lives ($TMPDIR/waldur-site-agent-rabbitmq)
#   WSA_RABBITMQ_PORT   first of eight ports (27817: AMQP, management, STOMP, STOMP over WebSocket,
#                       MQTT, MQTT over WebSocket, Erlang distribution, epmd)
#
# The administrator is waldur with the password waldur; the WebSocket paths are /rmqws-stomp and
# /rmqws, as Waldur's proxies have them. Prints one setting per line when the broker is ready.
# `$WSA_RABBITMQ_DIR/ctl` is rabbitmqctl for this broker. `up.sh packages` prints only the names of the
# Debian packages that it needs.
set -eu

PACKAGES='rabbitmq-server openssl'      # openssl: tests make certificates
[ "${1:-}" != packages ] || { echo "$PACKAGES"; exit 0; }

SERVICE=rabbitmq
DIR=${WSA_RABBITMQ_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-rabbitmq}
PORT=${WSA_RABBITMQ_PORT:-27817}
NODE=wsatest@localhost

. "$(dirname "$0")/../common.sh"
[ "$(id -u)" = 0 ] || { say "must be root"; exit 2; }
cd /        # Erlang looks into its working directory, which its user may not be allowed to

write_configuration() {
    umask 022
    mkdir -p "$DIR/etc" "$DIR/db" "$DIR/log" "$DIR/run" "$DIR/home"
    cat >"$DIR/etc/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$PORT
management.tcp.ip = 127.0.0.1
management.tcp.port = $((PORT + 1))
stomp.listeners.tcp.1 = 127.0.0.1:$((PORT + 2))
web_stomp.tcp.ip = 127.0.0.1
web_stomp.tcp.port = $((PORT + 3))
web_stomp.ws_path = /rmqws-stomp
mqtt.listeners.tcp.1 = 127.0.0.1:$((PORT + 4))
mqtt.allow_anonymous = false
web_mqtt.tcp.ip = 127.0.0.1
web_mqtt.tcp.port = $((PORT + 5))
web_mqtt.ws_path = /rmqws
default_user = waldur
default_pass = waldur
default_user_tags.administrator = true
log.console = false
log.file.level = info
vm_memory_high_watermark.absolute = 1GiB
disk_free_limit.absolute = 100MB
CONF
    plugins=rabbitmq_management,rabbitmq_stomp,rabbitmq_web_stomp,rabbitmq_mqtt,rabbitmq_web_mqtt
    echo "[$plugins]." >"$DIR/etc/plugins"
    # an idle Erlang would spin for a while after each piece of work; other tests need the processor
    cat >"$DIR/etc/environment" <<CONF
export HOME=$DIR/home
export ERL_EPMD_ADDRESS=127.0.0.1
export ERL_EPMD_PORT=$((PORT + 7))
export RABBITMQ_NODENAME=$NODE
export RABBITMQ_USE_LONGNAME=false
export RABBITMQ_DIST_PORT=$((PORT + 6))
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
export RABBITMQ_CONFIG_FILE=$DIR/etc/rabbitmq.conf
export RABBITMQ_CONF_ENV_FILE=/dev/null
export RABBITMQ_ENABLED_PLUGINS_FILE=$DIR/etc/plugins
export RABBITMQ_MNESIA_BASE=$DIR/db
export RABBITMQ_LOG_BASE=$DIR/log
export RABBITMQ_PID_FILE=$DIR/run/beam.smp.pid
CONF
    if [ ! -s "$DIR/home/.erlang.cookie" ]; then
        head -c 200 /dev/urandom | tr -dc A-Za-z0-9 >"$DIR/home/.erlang.cookie"
        chmod 400 "$DIR/home/.erlang.cookie"
    fi
    chown -R rabbitmq: "$DIR"
    # the scripts that come with RabbitMQ: Debian's own wrappers would set another HOME
    scripts=$(echo /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin)
    # Erlang complains on its output about a working directory that its user may not read
    cat >"$DIR/ctl" <<SCRIPT
#!/bin/sh
cd /
exec runuser -u rabbitmq -- sh -c '. $DIR/etc/environment; exec "\$@"' sh $scripts/rabbitmqctl "\$@"
SCRIPT
    chmod 755 "$DIR/ctl"
}

# the broker is no root: a directory below /root is out of its reach, and it could not even say so
check_reach() {
    runuser -u rabbitmq -- test -x "$DIR/log" ||
        { say "the user rabbitmq cannot reach $DIR; name another directory by WSA_RABBITMQ_DIR"; exit 2; }
}

# listens PORT: the kernel's table has a socket in state LISTEN (0A)
listens() { grep -Eq "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F]+:0000 0A" /proc/net/tcp /proc/net/tcp6; }

all_listen() {
    for offset in 0 1 2 3 4 5; do
        listens $((PORT + offset)) || return 1
    done
}

start_port_mapper() {
    is_up epmd && return 0
    setsid runuser -u rabbitmq -- sh -c 'echo $$ >"$1"; exec epmd -address 127.0.0.1 -port "$2"' \
        sh "$DIR/run/epmd.pid" $((PORT + 7)) </dev/null >>"$DIR/log/epmd.out" 2>&1 9>&- &
    wait_until epmd listens $((PORT + 7))
}

start_broker() {
    is_up beam.smp && return 0
    rm -f "$DIR/run/beam.smp.pid"
    setsid runuser -u rabbitmq -- sh -c '. "$1"; exec "$2"' sh "$DIR/etc/environment" \
        "$scripts/rabbitmq-server" </dev/null >>"$DIR/log/start.out" 2>&1 &
}

one_at_a_time install_packages
write_configuration
check_reach
start_port_mapper
start_broker
wait_until rabbitmq-server all_listen
wait_until rabbitmq-server is_up beam.smp
cat <<SETTINGS
WSA_RABBITMQ_DIR=$DIR
WSA_RABBITMQ_PORT=$PORT
SETTINGS
