# A Ceph cluster of one monitor and one OSD, whose data are in memory; messenger v1, without authentication.
target_prepare() {
    :
}

target_up() {
    mkdir -p /run/ceph /var/lib/ceph/mon /var/lib/ceph/osd /var/log/ceph /etc/ceph
    # ceph-mon gives up without this name; the user is looked up.
    grep -q '^ceph:' /etc/passwd || echo 'ceph:x:64045:64045::/var/lib/ceph:/bin/sh' >>/etc/passwd
    grep -q '^ceph:' /etc/group || echo 'ceph:x:64045:' >>/etc/group
    monitor="$TARGET_ADDRESS:6789"
    cat >/etc/ceph/ceph.conf <<END
[global]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_bind_msgr2 = false
ms_async_op_threads = 1
mon_host = v1:$monitor
public_addr = $TARGET_ADDRESS
mon_allow_pool_size_one = true
mon_data = /var/lib/ceph/mon/a
osd_data = /var/lib/ceph/osd/0
osd_objectstore = memstore
memstore_device_bytes = $((LUN_GIB << 30))
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_crush_update_on_start = false
osd_op_num_shards = 1
log_to_stderr = false
log_file = /var/log/ceph/\$name.log
END
    need monmaptool --create --addv a "[v1:$monitor]" /tmp/monmap
    need osdmaptool --createsimple 1 /tmp/osdmap --clobber
    need ceph-mon -i a --mkfs --monmap /tmp/monmap --osdmap /tmp/osdmap
    need ceph-mon -i a
    mkdir -p /var/lib/ceph/osd/0
    need ceph-osd -i 0 --mkfs
    # It may ask the monitor before it knows the cluster's id, is told "wrong fsid" and gives up.
    await 60 "the OSD to start" ceph-osd -i 0
    await 60 "the OSD to be up" osd_is_up
    # A pool of the first map would never get its placement group.
    need monitor_command '{"prefix": "osd pool create", "pool": "loopanic", "pg_num": 1, "pgp_num": 1, "size": 1, "yes_i_really_mean_it": true}'
    need timeout 60 rbd create loopanic/lun --size "${LUN_GIB}G" --image-feature layering
}

# monitor_command JSON: prints the answer.
monitor_command() {
    timeout 30 python3.11 -c '
import rados, sys
with rados.Rados(conffile="/etc/ceph/ceph.conf") as cluster:
    code, out, words = cluster.mon_command(sys.argv[1], b"", timeout=20)
    print(out.decode())
    if code: sys.exit(words)
' "$1"
}

osd_is_up() {
    monitor_command '{"prefix": "osd stat", "format": "json"}' | grep -q '"num_up_osds": *1'
}
