# How this image does what images do differently: through the distribution's own services. Read by /loopanic/trial.
image_ssh() {
    cp /loopanic/hostkey.openssh /etc/ssh/ssh_host_ed25519_key
    chmod 600 /etc/ssh/ssh_host_ed25519_key
    systemctl start ssh &
}

image_kdump() {
    cat >/etc/default/kdump-tools <<END
USE_KDUMP=1
KDUMP_KERNEL=/loopanic/kdump/vmlinuz
KDUMP_INITRD=/loopanic/kdump/initramfs
KDUMP_KEXEC_ARGS="-c --no-checks"
KDUMP_CMDLINE="$1"
END
    need systemctl start kdump-tools
}

# image_tgtd ADDRESS: starts tgtd; where a service has no say in it, tgtd listens on every address.
image_tgtd() {
    need systemctl start tgt
    [ -z "$PIN_CPU" ] || need taskset -a -p -c "$PIN_CPU" "$(pidof tgtd | cut -d ' ' -f 1)"
}

image_iscsi_login() {
    echo "InitiatorName=$1" >/etc/iscsi/initiatorname.iscsi
    login_target=$2
    shift 2
    need systemctl start iscsid
    need iscsiadm -m node -T "$login_target" -p "$TARGET_ADDRESS:${PORTS% *}" -o new
    for p in "$@"; do
        need iscsiadm -m node -T "$login_target" -p "$TARGET_ADDRESS:${PORTS% *}" -o update -n "${p%%=*}" -v "${p#*=}"
    done
    need iscsiadm -m node -T "$login_target" -p "$TARGET_ADDRESS:${PORTS% *}" --login
}
