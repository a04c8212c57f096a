# nvmet over TCP, set up by configfs.
target_prepare() {
    :
}

target_up() {
    mount_configfs
    subsystem=$CONFIG/nvmet/subsystems/loopanic port=$CONFIG/nvmet/ports/1
    need mkdir -p "$subsystem/namespaces/1" "$port"
    put 1 "$subsystem/attr_allow_any_host"
    put /dev/vda "$subsystem/namespaces/1/device_path"
    put 1 "$subsystem/namespaces/1/enable"
    put tcp "$port/addr_trtype"
    put ipv4 "$port/addr_adrfam"
    put "$TARGET_ADDRESS" "$port/addr_traddr"
    put "${PORTS% *}" "$port/addr_trsvcid"
    need ln -s "$subsystem" "$port/subsystems/loopanic"
}
