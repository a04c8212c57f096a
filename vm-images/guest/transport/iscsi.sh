# The kernel's iSCSI initiator. Every transport has these two functions.

# transport_connect: brings the LUN up as /dev/$DISK.
transport_connect() {
    connection='node.conn[0].iscsi'
    image_iscsi_login iqn.2026-01.loopanic:initiator iqn.2026-01.loopanic:lun \
        "$connection.HeaderDigest=$SET_headerDigest" "$connection.DataDigest=$SET_dataDigest" \
        "node.session.iscsi.ImmediateData=$SET_immediateData"
}

# transport_facts: the settings of the session as they were negotiated, and where its target is.
transport_facts() {
    for dir in /sys/class/iscsi_connection/connection*; do
        fact_word transport.headerDigest "$dir/header_digest" None CRC32C
        fact_word transport.dataDigest "$dir/data_digest" None CRC32C
        fact_file transport.targetAddress "$dir/persistent_address"
        for name in max_recv_dlength max_xmit_dlength persistent_port; do
            fact_file "transport.$name" "$dir/$name"
        done
    done
    for dir in /sys/class/iscsi_session/session*; do
        fact_word transport.immediateData "$dir/immediate_data" No Yes
        for name in initial_r2t first_burst_len max_burst_len max_outstanding_r2t targetname; do
            fact_file "transport.$name" "$dir/$name"
        done
    done
}
