# How this image does what images do differently: through the distribution's own services. Read by /loopanic/trial.
image_ssh() {
    cp /loopanic/hostkey.openssh /etc/ssh/ssh_host_ed25519_key
    chmod 600 /etc/ssh/ssh_host_ed25519_key
    systemctl start sshd &
}

# kdumpctl takes an initramfs that is there and newer than its configuration; without one it would build its own with dracut.
image_kdump() {
    release=$(uname -r)
    echo 'force_no_rebuild 1' >/etc/kdump.conf
    cat >/etc/sysconfig/kdump <<END
KDUMP_KERNELVER=$release
KDUMP_COMMANDLINE="$1"
KDUMP_COMMANDLINE_REMOVE=
KDUMP_COMMANDLINE_APPEND=
KEXEC_ARGS="-c --no-checks"
KDUMP_BOOTDIR=/boot
KDUMP_IMG=vmlinuz
KDUMP_IMG_EXT=
END
    need cp /loopanic/kdump/vmlinuz "/boot/vmlinuz-$release"
    need cp /loopanic/kdump/initramfs "/boot/initramfs-${release}kdump.img"
    need systemctl start kdump
}

# image_tgtd ADDRESS: starts tgtd; where a service has no say in it, tgtd listens on every address.
image_tgtd() {
    need systemctl start tgtd
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
