# What every guest script shares. Two channels lead to the host:
#   /dev/kmsg   the console: phases, cycles, failures. Atomic lines in the kernel's own order, which is what the outcome rests on
#   stdout      the second serial port: facts ("@TOKEN key value"), heartbeats, the output of commands
. /loopanic/plan

say() {
    printf '<5>loopanic:%s: %s\n' "$TOKEN" "$*" >/dev/kmsg
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

phase() {
    PHASE=$1
    say "phase $1"
}

# die MESSAGE: the trial says nothing about the kernel. The harness ends the VM when it reads this.
die() {
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

# A workload reports through these: proof of what it did, read from the kernel's own counters.
work_begin() {
    PHASE=workload
    WORK_MERGED=0
    read -r _ _ _ _ _ _ WORK_BASE _ </sys/block/sda/stat
}

# work_cycle N: cycle N is over.
work_cycle() {
    # AGF and AGI are sectors 1 and 2 of a group: a two-sector write at 1 is the merged pair. Line: "… block_rq_issue: 8,0 WM 1024 () 1 + 2 […]"
    WORK_MERGED=$((WORK_MERGED + $(awk -v group="$GROUP_SECTORS" '
        /block_rq_issue:/ { for (i = 2; i < NF; i++) if ($i == "+" && $(i + 1) == 2 && $(i - 1) % group == 1) n++ }
        END { print n + 0 }' "$TRACING/trace")))
    echo >"$TRACING/trace"
    read -r _ _ _ _ _ _ work_sectors _ </sys/block/sda/stat
    WORK_DONE="merged=$WORK_MERGED bytes=$(((work_sectors - WORK_BASE) * 512))"
    say "cycle $1 $WORK_DONE"
}

# work_done N: all N cycles are over.
work_done() {
    say "done cycles=$1 $WORK_DONE"
}
