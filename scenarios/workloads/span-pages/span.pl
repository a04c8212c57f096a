# span.pl FILE PAGES HOW: takes PAGES huge pages, finds where they lie in physical memory (/proc/self/pagemap), and writes two pieces of 4
# KiB to FILE by one direct pwritev: the end of one and the beginning of another, for every pair that HOW asks for (neighbours, apart), or
# the first piece alone (single). x86-64: mmap 9, pwritev 296; O_DIRECT 040000; MAP_PRIVATE 2, MAP_FIXED 16, MAP_ANONYMOUS 32,
# MAP_POPULATE 32768, MAP_HUGETLB 262144.
my ($file, $count, $how) = @ARGV;
my ($huge, $page, $base) = (2 << 20, 4096, 0x200000000);
my $mapped = syscall 9, $base, $count * $huge, 3, 2 | 16 | 32 | 32768 | 262144, -1, 0;
die "mmap: $!\n" if $mapped == -1;
open my $map, '<', '/proc/self/pagemap' or die "pagemap: $!\n";
my (%at, @frame);
for my $i (0 .. $count - 1) {
    sysseek $map, ($base + $i * $huge) / $page * 8, 0;
    sysread($map, my $entry, 8) == 8 or die "pagemap: $!\n";
    my $frame = unpack('Q', $entry) & ((1 << 55) - 1);
    die "the page frame numbers are hidden\n" if !$frame;
    ($frame[$i], $at{$frame}) = ($frame, $i);
}
sysopen my $out, $file, 2 | 040000 or die "open $file: $!\n";
my $written = 0;
for my $i (0 .. $count - 1) {
    my $next = $at{$frame[$i] + $huge / $page};
    my $second = $how eq 'apart' ? (grep { $_ != $i && (!defined $next || $_ != $next) } 0 .. $count - 1)[0] : $next;
    next if !defined $second;
    my @pieces = ($base + ($i + 1) * $huge - $page, $page);
    push @pieces, $base + $second * $huge, $page if $how ne 'single';
    my $vector = pack 'Q*', @pieces;
    my $sent = syscall 296, fileno $out, $vector, @pieces / 2, $written * 2 * $page, 0;
    die "pwritev: $!\n" if $sent != @pieces / 2 * $page;
    $written++;
}
die "no two of $count huge pages are neighbours in physical memory\n" if !$written;
print "$written writes\n";
