# LIO, set up by configfs alone.
target_prepare() {
    # Where it keeps state; without it, it complains.
    mkdir -p /etc/target
}

# lio_backstore: the LUN's folder below /sys/kernel/config/target/core.
lio_backstore() {
    mkdir -p "$CONFIG/target/core/iblock_0/lun"
    put udev_path=/dev/vda "$CONFIG/target/core/iblock_0/lun/control"
    put 1 "$CONFIG/target/core/iblock_0/lun/enable"
    backstore=$CONFIG/target/core/iblock_0/lun
}

target_up() {
    mount_configfs
    lio_backstore
    tpg=$CONFIG/target/iscsi/iqn.2026-01.loopanic:lun/tpgt_1
    need mkdir -p "$tpg/lun/lun_0" "$tpg/np/$TARGET_ADDRESS:${PORTS% *}"
    need ln -s "$backstore" "$tpg/lun/lun_0/disk"
    # Whoever comes may write, without a password.
    for setting in authentication=0 generate_node_acls=1 cache_dynamic_acls=1 demo_mode_write_protect=0; do
        put "${setting#*=}" "$tpg/attrib/${setting%%=*}"
    done
    put "$SET_headerDigest" "$tpg/param/HeaderDigest"
    put "$SET_dataDigest" "$tpg/param/DataDigest"
    put "$SET_immediateData" "$tpg/param/ImmediateData"
    put 1 "$tpg/enable"
}
