#!/usr/bin/env bash
# Runs as process 1 of the node's PID namespace, in its own mount namespace:
# arranges the mounts and becomes the pause program. The machine does
# not see these mounts. Called by namespaces.sh only.
#
#   inside_node.sh NODE_DIR PROGRAM...
set -euo pipefail
node_dir=$1
shift

mount --make-rprivate /

# The programs may lie anywhere, also below a directory that is hidden next.
for program in "$@"; do
  touch "$node_dir/bin/$(basename "$program")"
  mount --bind "$program" "$node_dir/bin/$(basename "$program")"
done

# The node's programs have fixed paths below /run, /var/lib and /var/log (shim
# sockets, CNI results, links to logs); each cluster gets its own of these.
mkdir -p "$node_dir/var-lib/$(basename "$node_dir")"
mount --rbind "$node_dir" "$node_dir/var-lib/$(basename "$node_dir")"
mount --rbind "$node_dir/var-log" /var/log
mount --rbind "$node_dir/run" /run
mount --rbind "$node_dir/var-lib" /var/lib

# The kubelet sets these for the whole machine unless they already have its
# values; it reads them here.
fake_sysctl() {
  local file=$node_dir/run/sysctl-${1//\//-}
  echo "$2" >"$file"
  mount --bind "$file" "/proc/sys/$1"
}
fake_sysctl vm/overcommit_memory 1
fake_sysctl vm/panic_on_oom 0
fake_sysctl kernel/panic 10
fake_sysctl kernel/panic_on_oops 1
fake_sysctl kernel/keys/root_maxkeys 1000000
fake_sysctl kernel/keys/root_maxbytes 25000000

touch /run/mounted
exec "$node_dir/bin/pause" "$node_dir"
