# LIO with a fileio backstore.
. /loopanic/target/lio.sh

lio_backstore() {
    mkdir -p "$CONFIG/target/core/fileio_0/lun"
    put "fd_dev_name=/dev/vda" "$CONFIG/target/core/fileio_0/lun/control"
    put 1 "$CONFIG/target/core/fileio_0/lun/enable"
    backstore=$CONFIG/target/core/fileio_0/lun
}
