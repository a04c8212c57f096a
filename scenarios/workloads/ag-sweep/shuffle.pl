# shuffle.pl COUNT SIZE SEED CYCLE: deals the free lists of one kmalloc cache anew. COUNT keys with SIZE bytes of payload (the
# kernel adds a header of 24 bytes) fill the cache's partial slabs and some new ones; nine of ten are then freed in random order.
# A slab's free list is last in, first out, so later objects come out in that random order. The tenth that stays keeps its slab
# from being given back. Syscall numbers: x86-64 add_key 248, keyctl 250 (3 revoke, 7 clear); -4 is the user keyring.
my ($count, $size, $seed, $cycle) = @ARGV;
my $keyring = -4;
my ($type, $payload) = ('user', 'x' x $size);
srand($seed * 1000 + $cycle);
syscall(250, 7, $keyring) == 0 or die "keyctl clear: $!\n";
my @keys;
for my $i (1 .. $count) {
    my $name = "loopanic-$cycle-$i";
    my $key = syscall(248, $type, $name, $payload, $size, $keyring);
    die "add_key: $!\n" if $key < 0;
    push @keys, $key;
}
for (my $i = $#keys; $i > 0; $i--) {
    my $j = int rand($i + 1);
    @keys[$i, $j] = @keys[$j, $i];
}
for my $key (@keys[0 .. int($count * 0.9) - 1]) {
    syscall(250, 3, $key) == 0 or die "keyctl revoke: $!\n";
}
