# pair.pl DIR GROUPS: has XFS read AGI and AGF of every allocation group anew, one right after the other, so that they take two
# objects in a row off the free list. What a mount reads last differs from kernel to kernel: 5.10 drops what its recovery read, then
# reads all AGIs in a row and each AGF when it is needed, and the two are never neighbours. XFS_IOC_AG_GEOMETRY (Linux 5.2 and
# later) reads just these two. A kernel without it keeps what its mount read.
my ($dir, $groups) = @ARGV;
open my $fs, '<', $dir or die "open $dir: $!\n";
my $geometry = sub { my $buffer = pack 'L32', shift; ioctl $fs, 0xC080583D, $buffer };
unless ($geometry->(0)) {
    exit 0 if $! == 25; # ENOTTY
    die "XFS_IOC_AG_GEOMETRY: $!\n";
}
# A buffer stays in its list for as many rounds as it has references: XFS gives these headers four.
for (1 .. 5) {
    open my $drop, '>', '/proc/sys/vm/drop_caches' or die "drop_caches: $!\n";
    print $drop "2\n";
    close $drop or die "drop_caches: $!\n";
}
for my $group (0 .. $groups - 1) { $geometry->($group) or die "XFS_IOC_AG_GEOMETRY of group $group: $!\n" }
