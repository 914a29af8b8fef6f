# shellcheck shell=bash
# Starts, recognises and ends the cluster's processes, each by a recorded pid.
# Processes are never found or ended by name: other clusters and other users'
# programs of the same name may run on the same machine. Other files configure
# the programs.

# Where a process runs. "host" is the plain machine; "net" is the cluster's
# network and PID namespace; "node" adds its mount namespace.
enter() {
  case $1 in
    host) ENTER=() ;;
    net) ENTER=(nsenter --target "$(holder_pid)" --net --pid --) ;;
    node) ENTER=(nsenter --target "$(holder_pid)" --net --pid --mount --) ;;
  esac
}

holder_pid() { cut -d' ' -f1 "$PID_DIR/namespaces.pid"; }

# start NAME WHERE COMMAND...: runs it detached, so that it outlives the calling
# shell and its terminal, and records the pid.
start() {
  local name=$1 where=$2 pid
  shift 2
  enter "$where"
  # The lock of cluster.sh must not be inherited: the component would hold it until it ends.
  setsid "${ENTER[@]}" "$@" </dev/null >>"$LOG_DIR/$name.log" 2>&1 9>&- &
  pid=$!
  disown "$pid"
  if [[ $where != host ]]; then
    # nsenter forks, because a process cannot change its own PID namespace.
    pid=$(wait_child "$pid") || component_failed "$name" "ended as soon as it was started"
  fi
  record "$name" "$pid"
}

wait_child() {
  local child='' tries
  for ((tries = 0; tries < 300; tries++)); do
    { read -r child _ <"/proc/$1/task/$1/children"; } 2>/dev/null || true
    [[ -z $child ]] || { echo "$child" && return; }
    [[ -e /proc/$1 ]] || return 1
    sleep 0.1
  done
  return 1
}

# The kernel may reuse a pid; pid and start time together are unique.
record() { printf '%s %s\n' "$2" "$(start_time "$2")" >"$PID_DIR/$1.pid"; }

# Field 22 of /proc/PID/stat, counted after the name, which may hold blanks.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  awk '{ print $20 }' <<<"${stat##*) }"
}

# running NAME sets RUNNING_PID if the recorded process still runs and is ours:
# the command line of each of our processes names a directory of this cluster.
running() {
  local pid started state
  RUNNING_PID=
  [[ -r $PID_DIR/$1.pid ]] || return 1
  read -r pid started <"$PID_DIR/$1.pid" || return 1
  [[ -n $started && $(start_time "$pid") == "$started" ]] || return 1
  state=$(awk '/^State:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || return 1
  [[ $state != Z ]] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -e "$CLUSTER_DIR" -e "$NODE_DIR" || return 1
  RUNNING_PID=$pid
}

# stop NAME: SIGTERM, five seconds, then SIGKILL.
stop() {
  if running "$1"; then
    kill -TERM "$RUNNING_PID" 2>/dev/null || true
    wait_for "${2:-5}" not_running "$1" || kill -KILL "$RUNNING_PID" 2>/dev/null || true
    wait_for 5 not_running "$1" || warn "  $1 (pid $RUNNING_PID) does not end"
  fi
  rm -f "$PID_DIR/$1.pid"
}

not_running() { ! running "$1"; }

# component_failed NAME WHAT: shows the end of its log and exits.
component_failed() {
  local log=$LOG_DIR/$1.log
  warn "---- last lines of $log (without information and warnings)"
  # klog begins a line with its level; where there are no errors, show everything.
  { grep -v '^[IW][0-9]' "$log" || cat "$log"; } 2>/dev/null | tail -n 25 >&2 || true
  warn "----"
  die "$1: $2" "all logs: $LOG_DIR" "try again with: e2e/cluster.sh down && e2e/cluster.sh up"
}

# await NAME SECONDS WHAT COMMAND...: the component must live until COMMAND is true.
await() {
  local name=$1 what=$3 deadline=$((SECONDS + $2)) limit=$2
  shift 3
  until "$@" >/dev/null 2>&1; do
    running "$name" || component_failed "$name" "ended while waiting for: $what"
    [[ $SECONDS -lt $deadline ]] || component_failed "$name" "not within $limit s: $what"
    sleep 0.2
  done
}
