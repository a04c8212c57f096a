# What every guest script shares. Two channels lead to the host:
#   /dev/kmsg   the console: phases, cycles, failures. Atomic lines in the kernel's own order, which is what the outcome rests on
#   stdout      the second serial port: facts ("@TOKEN key value"), heartbeats, the output of commands, at last the kernel's whole log
. /loopanic/plan
GATE=

# Each is numbered, across all scripts: a gap shows that the console lost something.
say() {
    read -r said </loopanic/said
    said=$((said + 1))
    echo "$said" >/loopanic/said
    printf '<5>loopanic:%s:%s: %s\n' "$TOKEN" "$said" "$*" >/dev/kmsg
}

fact() {
    printf '@%s %s\n' "$TOKEN" "$*"
}

# fact_file KEY FILE: the first line of FILE as a fact; nothing if the kernel has no such file.
fact_file() {
    [ -r "$2" ] || return 0
    read -r fact_value <"$2" || return 0
    fact "$1" "$fact_value"
}

# fact_word KEY FILE WORD0 WORD1: what a file that says 0 or 1 means.
fact_word() {
    [ -r "$2" ] || return 0
    read -r fact_value <"$2" || return 0
    case $fact_value in 0) fact "$1" "$3" ;; 1) fact "$1" "$4" ;; *) fact "$1" "$fact_value" ;; esac
}

phase() {
    PHASE=$1
    say "phase $1"
}

# kernel_log: every record since the first marker, on the second port. Prints how many there were.
kernel_log() {
    perl /loopanic/kernel-log.pl "$TOKEN" || echo 'records=unread'
}

# die MESSAGE: the trial says nothing about the kernel. The harness ends the VM when it reads this.
die() {
    # What leaked in a cycle that did not end.
    if [ -n "$GATE" ]; then
        gate_read
        fact gate.rest "$GATE_READ"
    fi
    kernel_log >/dev/null
    say "failed $PHASE: $*"
    while :; do sleep 3600; done
}

# need COMMAND...: run it; if it fails, so does the trial, with the command's last words.
need() {
    need_output=$("$@" 2>&1) || {
        need_code=$?
        echo "$need_output"
        die "$* (exit $need_code): $(echo "$need_output" | tail -n 1)"
    }
    [ -z "$need_output" ] || echo "$need_output"
}

# put VALUE FILE: writes to a file of configfs or sysfs.
put() {
    put_output=$( (echo "$1" >"$2") 2>&1) || die "the kernel refuses $1 for $2: $put_output"
}

# mount_configfs: sets CONFIG.
mount_configfs() {
    CONFIG=/sys/kernel/config
    grep -q " $CONFIG configfs " /proc/mounts || need mount -t configfs configfs $CONFIG
}

# await SECONDS WHAT COMMAND...: poll until COMMAND holds.
await() {
    await_left=$(($1 * 20))
    await_what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        await_left=$((await_left - 1))
        [ "$await_left" -gt 0 ] || die "waited in vain for $await_what"
        sleep 0.05
    done
}

# A workload reports through these: proof of what it did, read from the kernel's own counters and trace of completed requests.
work_begin() {
    PHASE=workload
    WORK_TOTAL=
    TRACE=$TRACING/trace
    gate_begin
    read -r _ _ _ _ _ _ WORK_BASE _ <"/sys/block/$DISK/stat"
}

# work_counts: what the LUN completed since the cycle began, as KEY=NUMBER words; a workload of another bug has one of its own. Here:
# merged writes of AGF and AGI, reads of either, and headers written, alone or merged. AGF and AGI are sectors 1 and 2 of a group: a
# two-sector write at 1 is the merged pair, a read of one sector at either is a header that came from the LUN. Line: "… block_rq_complete:
# 8,0 WM () 1 + 2 [0]"; since 6.10 the priority comes before the error. A request that failed is no work.
work_counts() {
    awk -v group="$GROUP_SECTORS" '
        /block_rq_complete:/ && $NF == "[0]" {
            for (i = 2; i < NF; i++) if ($i == "+") { sector = $(i - 1) % group; count = $(i + 1); break }
            for (i = 2; i < NF; i++) if ($i == "block_rq_complete:") { kind = $(i + 2); break }
            if (kind ~ /W/ && count == 2 && sector == 1) { merged++; headers += 2 }
            if (kind ~ /W/ && count == 1 && (sector == 1 || sector == 2)) headers++
            if (kind ~ /R/ && count == 1 && (sector == 1 || sector == 2)) reads++
        }
        END { print "merged=" merged + 0, "reads=" reads + 0, "headers=" headers + 0 }' "$TRACE"
}

# requests_read: read requests that the LUN completed since it appeared.
requests_read() {
    read -r requests _ <"/sys/block/$DISK/stat"
    echo "$requests"
}

# gate_begin: sets the probe of the gate (gate.pl). A trial without a reading goes on: why there is none is told.
gate_begin() {
    GATE='' GATE_READ=''
    [ -n "$GATE_FUNCTIONS" ] || return 0
    # If it panics, the kernel prints what the trace holds: the calls that led there.
    echo 1 >/proc/sys/kernel/ftrace_dump_on_oops || :
    # Words, on purpose.
    # shellcheck disable=SC2086
    if GATE=$(perl /loopanic/gate.pl start $GATE_LEAK $GATE_FUNCTIONS 2>/run/loopanic-gate-why); then
        fact gate.probe "$GATE"
    else
        fact gate.why "$(tail -n 1 /run/loopanic-gate-why)"
        GATE=
    fi
}

# gate_read: takes the trace's records out of the buffer: what went through the gate as KEY=NUMBER words, added to GATE_READ, the others to the
# file TRACE. A workload calls it before it gives back memory that was sent; each cycle ends with it.
gate_read() {
    [ -n "$GATE" ] || return 0
    TRACE=/run/loopanic-trace
    if gate_words=$(perl /loopanic/gate.pl read 2>/run/loopanic-gate-why); then
        GATE_READ="$GATE_READ $gate_words"
    else
        fact gate.why "$(tail -n 1 /run/loopanic-gate-why)"
        GATE_READ="$GATE_READ gatelost=1"
        cat "$TRACING/trace" >>$TRACE
    fi
    cat /run/loopanic-gate-why
}

# work_cycle N: cycle N is over.
work_cycle() {
    gate_read
    work_now="$(work_counts) $GATE_READ"
    # What was taken out of it is gone; to clear it would lose what came since.
    if [ -n "$GATE" ]; then : >"$TRACE"; else echo >"$TRACING/trace"; fi
    GATE_READ=
    WORK_TOTAL=$(echo "$WORK_TOTAL $work_now" | tr ' ' '\n' | awk -F = '
        NF == 2 { if (!($1 in sum)) order[++n] = $1; sum[$1] += $2 }
        END { for (i = 1; i <= n; i++) printf "%s=%d ", order[i], sum[order[i]] }')
    read -r _ _ _ _ _ _ work_sectors _ <"/sys/block/$DISK/stat"
    WORK_DONE="${WORK_TOTAL}bytes=$(((work_sectors - WORK_BASE) * 512))"
    say "cycle $1 $WORK_DONE"
}

# work_done N: all N cycles are over.
work_done() {
    say "done cycles=$1 $WORK_DONE"
}
