# shellcheck shell=bash
# shellcheck disable=SC2034 # used by those that source it
# What dev/services and dev/kafka share. Sourced, never run.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# Services of their own, beside those of the checkout, have a folder of their own; the
# jars are shared.
state=${SERVICES_DIR:-$root/.services}
broker=$root/dev/broker

kafka_dir=$state/kafka
kafka_libs=$root/.services/kafka/libs

die() {
  printf '%s: %s\n' "dev/${0##*/}" "$*" >&2
  exit 1
}

# is_running PID WORD...: is PID alive and is each WORD an argument of it?
# A pid file alone proves nothing: after a kill -9 or a reboot its number may
# belong to somebody else's process. The command line can be read by every user.
is_running() {
  local pid=$1 word
  local -a args
  shift
  [[ $pid =~ ^[0-9]+$ && -r /proc/$pid/cmdline ]] || return 1
  mapfile -d '' -t args 2>/dev/null <"/proc/$pid/cmdline" || return 1
  for word; do
    # The separators make it a comparison of whole arguments.
    [[ $'\n'$(printf '%s\n' "${args[@]}")$'\n' == *$'\n'"$word"$'\n'* ]] || return 1
  done
}

# Prints the broker's pid; fails if it isn't running.
kafka_pid() {
  local pid
  pid=$(cat "$kafka_dir/pid" 2>/dev/null) || return 1
  is_running "$pid" kafka.Kafka "$kafka_dir/server.properties" || return 1
  printf '%s\n' "$pid"
}

# The port of the running broker, which may have been started with another
# KAFKA_PORT than this shell has; else the configured one.
kafka_port() {
  if kafka_pid >/dev/null && [[ -s $kafka_dir/port ]]; then
    cat "$kafka_dir/port"
  else
    printf '%s\n' "${KAFKA_PORT:-19092}"
  fi
}

# Prints a java that can run Kafka 4, which needs 17.
find_java() {
  local java major
  for java in "${JAVA_HOME:-/nonexistent}/bin/java" "$(type -P java || true)" /usr/lib/jvm/*/bin/java; do
    [[ -x $java ]] || continue
    major=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    if [[ ${major:-0} -ge 17 ]]; then
      printf '%s\n' "$java"
      return
    fi
  done
  return 1
}
