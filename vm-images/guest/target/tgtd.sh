# tgtd. Every target has these two functions.

# target_prepare: before any module is loaded.
target_prepare() {
    :
}

# target_up: serves /dev/vda at $TARGET_ADDRESS.
target_up() {
    iqn=iqn.2026-01.loopanic:lun
    image_tgtd "$TARGET_ADDRESS"
    await 30 tgtd tgtadm --op show --mode system
    need tgtadm --op new --mode target --tid 1 --targetname $iqn
    for p in HeaderDigest="$SET_headerDigest" DataDigest="$SET_dataDigest" ImmediateData="$SET_immediateData"; do
        need tgtadm --op update --mode target --tid 1 --name "${p%%=*}" --value "${p#*=}"
    done
    need tgtadm --op new --mode logicalunit --tid 1 --lun 1 --backing-store /dev/vda
    need tgtadm --op bind --mode target --tid 1 --initiator-address ALL
}
