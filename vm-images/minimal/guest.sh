# How this image does what images do differently. Read by /loopanic/trial.
image_ssh() {
    # In the background: it may wait long for an old kernel's random numbers.
    dropbear -r /loopanic/hostkey.dropbear -p 22 -s &
}

# image_kdump COMMAND-LINE: loads the crash kernel.
image_kdump() {
    # --no-checks: hashing the crash kernel costs seconds under TCG, here and again in the panic.
    need kexec -p -c --no-checks /loopanic/kdump/vmlinuz --initrd=/loopanic/kdump/initramfs --command-line="$1"
}

# image_tgtd ADDRESS
image_tgtd() {
    tgtd --iscsi portal="$1:${PORTS% *}"
}

# image_iscsi_login INITIATOR TARGET NAME=VALUE...
image_iscsi_login() {
    login_initiator=$1 login_target=$2
    shift 2
    login_params=
    for p in "$@"; do login_params="$login_params --param $p"; done
    need iscsistart --initiatorname "$login_initiator" --targetname "$login_target" --tgpt 1 --address "$TARGET_ADDRESS" --port "${PORTS% *}" $login_params
}
