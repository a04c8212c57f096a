# folios.pl FILE: how many of its pages lie in large folios of the page cache, by the kernel's own account: the file is mapped, /proc/self/pagemap
# tells the frame of each page, and /proc/kpageflags whether it is part of a compound page (bits 15 and 16: head, tail). x86-64: mmap 9;
# PROT_READ 1, MAP_SHARED 1, MAP_FIXED 16, MAP_POPULATE 32768.
my ($file) = @ARGV;
my ($page, $base) = (4096, 0x200000000);
open my $in, '<', $file or die "open $file: $!\n";
my $pages = int((-s $in) / $page);
syscall(9, $base, $pages * $page, 1, 1 | 16 | 32768, fileno $in, 0) == -1 and die "mmap: $!\n";
open my $map, '<', '/proc/self/pagemap' or die "pagemap: $!\n";
open my $flags, '<', '/proc/kpageflags' or die "kpageflags: $!\n";
sysseek $map, $base / $page * 8, 0;
my $entries = '';
while (length $entries < $pages * 8) {
    my $got = sysread $map, $entries, $pages * 8 - length $entries, length $entries;
    die "pagemap: $!\n" if !$got;
}
my ($large, $from, $words) = (0, -1, '');
for my $entry (unpack 'Q*', $entries) {
    next if !($entry >> 63);
    my $frame = $entry & ((1 << 55) - 1);
    # Frames of neighbouring pages are often neighbours: they are read by the thousand.
    if ($from < 0 || $frame < $from || $frame >= $from + length($words) / 8) {
        $from = $frame;
        sysseek $flags, $frame * 8, 0;
        defined(sysread $flags, $words, 8 * 1024) or die "kpageflags: $!\n";
    }
    my $word = unpack 'Q', substr $words, ($frame - $from) * 8, 8;
    $large++ if $word & (3 << 15);
}
print "$large\n";
