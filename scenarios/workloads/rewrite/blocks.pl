# blocks.pl HOW FILE MIB SEED ROUND NOTES: writes blocks of 16 KiB, each with its number and the round in which it was written, and notes the
# round of every block in NOTES. HOW: fill and sequential write all of them in order, random 500 of them in random order; check reads the
# file and compares it with the notes.
my ($how, $file, $mib, $seed, $round, $notes) = @ARGV;
my ($size, $count) = (16384, $mib * 64);
my @rounds = (0) x $count;
if ($how ne 'fill') {
    open my $in, '<', $notes or die "open $notes: $!\n";
    @rounds = split ' ', <$in>;
}
sub content {
    my ($block) = @_;
    my $word = "$block:$rounds[$block]\n";
    return substr $word x ($size / length($word) + 1), 0, $size;
}
if ($how eq 'check') {
    open my $in, '<', $file or die "open $file: $!\n";
    for my $block (0 .. $count - 1) {
        my $read = read $in, my $data, $size;
        die "read of block $block: $!\n" if !defined $read;
        die "block $block is not what was written in round $rounds[$block]\n" if $data ne content($block);
    }
    print "$count blocks are what was written\n";
    exit;
}
my @blocks = 0 .. $count - 1;
if ($how eq 'random') {
    srand($seed + $round);
    for (my $i = $#blocks; $i > 0; $i--) {
        my $j = int rand($i + 1);
        @blocks[$i, $j] = @blocks[$j, $i];
    }
    $#blocks = 499 if $#blocks > 499;
}
open my $out, $how eq 'fill' ? '>' : '+<', $file or die "open $file: $!\n";
for my $block (@blocks) {
    $rounds[$block] = $round;
    sysseek $out, $block * $size, 0 or die "seek: $!\n";
    my $sent = syswrite $out, content($block);
    die "write of block $block: $!\n" if $sent != $size;
}
close $out or die "close $file: $!\n";
open my $kept, '>', $notes or die "open $notes: $!\n";
print $kept "@rounds\n";
close $kept or die "close $notes: $!\n";
