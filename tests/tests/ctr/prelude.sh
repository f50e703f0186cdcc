# Functions for the scripts; see transcript.rs.

# Waits until the task or process $1 has ended, for at most five seconds.
stopped() {
    local n
    for n in $(seq 100); do
        if ctr tasks ls | grep -q "^$1 .*STOPPED"; then
            return 0
        fi
        sleep 0.05
    done
    echo "$1 does not stop"
    return 1
}

# Waits until the task $1 runs, or until its process $2 does, and a little longer, so that it has got somewhere.
running() {
    local n
    for n in $(seq 200); do
        if ctr tasks ls | grep -q "^$1 .*RUNNING" && { [ -z "${2:-}" ] || ctr tasks ps "$1" | grep -q "ExecID:$2"; }; then
            sleep 0.3
            return 0
        fi
        sleep 0.05
    done
    return 1
}

# Waits until what nothing holds is collected.
collect() {
    ctr leases rm --sync "$(ctr leases create)" >collected
}

# Content with its labels in order, which `ctr` shows in any: digest and size, then a line a label.
content() {
    ctr content ls |
        perl -F'\t+' -ane 'chomp @F; print "$F[0] $F[1]\n", map { "  $_\n" } sort split /,(?=containerd\.io|k=)/, $F[3]'
}

# The limits of the container $1, as the kernel has them.
limits() {
    local pid group
    pid=$(ctr tasks ls | awk -v id="$1" '$1 == id { print $2 }')
    for file in memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; do
        group=$(sed -n "s/^[0-9]*:${file%/*}://p" "/proc/$pid/cgroup")
        if [ -n "$group" ]; then
            echo "$file $(cat "/sys/fs/cgroup/${file%/*}$group/${file#*/}")"
        fi
    done
    group=$(sed -n "s/^0:://p" "/proc/$pid/cgroup")
    cat "/sys/fs/cgroup$group/memory.max" "/sys/fs/cgroup$group/cpu.max" 2>/dev/null || true
}

# Runs a command in a terminal; its lines end as they do in a file.
terminal() {
    # Its input stays open: an end would be a character of it.
    [ -p input ] || mkfifo input
    script -qefc "$1" /dev/null <>input | tr -d '\r'
}

# Keeps the events of this namespace from here on.
watch() {
    ctr events >events.log 2>&1 &
    watcher=$!
    local n
    for n in $(seq 100); do
        ctr namespaces label "$CONTAINERD_NAMESPACE" probe="$n"
        if grep -q /namespaces/ events.log; then
            return 0
        fi
        sleep 0.05
    done
    echo "no event"
    return 1
}

# Shows the events since `watch` without their times: namespace, topic, content. A pattern leaves others out.
seen() {
    sleep 0.3
    kill "$watcher"
    grep " $CONTAINERD_NAMESPACE " events.log | grep -v 'probe' | grep "${1:-.}" | sed 's/^.* +0000 UTC //'
}
