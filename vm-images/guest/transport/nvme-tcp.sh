# The kernel's NVMe over TCP host, without nvme-cli.

transport_connect() {
    options="nqn=loopanic,transport=tcp,traddr=$TARGET_ADDRESS,trsvcid=${PORTS% *}"
    [ "$SET_headerDigest" = off ] || options="$options,hdr_digest"
    [ "$SET_dataDigest" = off ] || options="$options,data_digest"
    await 10 /dev/nvme-fabrics test -c /dev/nvme-fabrics
    # One write: the kernel takes what it holds as one request. A shell's own printf was seen to be interrupted.
    need perl -e 'open my $fabrics, "+<", "/dev/nvme-fabrics" or die "$!\n"; syswrite($fabrics, $ARGV[0]) or die "$!\n"' "$options"
    connected=$options
}

# Digests have no file of their own in sysfs, but a connection without one that was asked for fails (nvme_tcp_init_connection() in
# drivers/nvme/host/tcp.c).
transport_facts() {
    for dir in /sys/class/nvme/nvme*; do
        [ -r "$dir/address" ] || continue
        read -r address <"$dir/address"
        address=${address#*traddr=}
        fact transport.targetAddress "${address%%,*}"
        fact_file transport.transport "$dir/transport"
        fact_file transport.state "$dir/state"
        case $connected in *hdr_digest*) fact transport.headerDigest on ;; *) fact transport.headerDigest off ;; esac
        case $connected in *data_digest*) fact transport.dataDigest on ;; *) fact transport.dataDigest off ;; esac
    done
}
