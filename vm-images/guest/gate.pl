# Reads the gate: which pages the kernel hands to the function that sends them by reference, by a kprobe event on it.
#
#   gate.pl start KIND FUNCTION...
#                               sets the probe on the first of them that this kernel has; prints what was learned of the kernel. KIND is what a
#                               leak is: `whole-objects`, a slab page; `across-pages`, a piece that runs across the end of a compound page
#   gate.pl read                prints what went through since the last read, as KEY=NUMBER words, and on its other output the first pages that
#                               leaked; what else the trace held goes to /run/loopanic-trace
#
# Nothing is assumed of struct page. Its place and size are those of this program's own pages, sent once over a connection of its own (a
# ping of 61 bytes): the probe tells their addresses, /proc/self/pagemap their frames. What marks a slab page, and where a tail page names
# its head, is learned from samples of all kinds of pages, as /proc/kpageflags tells them, read from /proc/kcore. What the probe lets through
# is then filtered in the kernel by these marks, so that other sends cost next to nothing; kprobe_profile counts them. Two pings at each read
# show that the probe still works, and whatever may have been lost is counted: a reading with losses is none. x86-64 alone.
my ($verb, $kind_of_leak, @functions) = @ARGV;
my ($tracing, $note) = ($ENV{TRACING}, '/run/loopanic-gate');
my ($page, $ping, $base) = (4096, 61, 0x210000000);
# Of /proc/kpageflags.
my ($slab, $head, $tail, $none) = map { 1 << $_ } 7, 15, 16, 20;

# spit MODE FILE TEXT: in one write, as the kernel's files want it.
sub spit {
    my ($mode, $file, $text) = @_;
    open my $out, $mode, $file or die "open $file: $!\n";
    defined(syswrite $out, "$text\n") or die "$file refuses $text: $!\n";
}

sub slurp {
    my ($file) = @_;
    open my $in, '<', $file or die "open $file: $!\n";
    local $/;
    return <$in>;
}

# Frames of COUNT new pages of this process at $base.
sub own_frames {
    my ($count) = @_;
    # mmap: PROT_READ | PROT_WRITE; MAP_PRIVATE 2, MAP_FIXED 16, MAP_ANONYMOUS 32, MAP_POPULATE 32768.
    syscall(9, $base, $count * $page, 3, 2 | 16 | 32 | 32768, -1, 0) == -1 and die "mmap: $!\n";
    open my $map, '<', '/proc/self/pagemap' or die "pagemap: $!\n";
    sysseek $map, $base / $page * 8, 0;
    sysread($map, my $entries, $count * 8) == $count * 8 or die "pagemap: $!\n";
    return map { $_ & ((1 << 55) - 1) or die "the page frame numbers are hidden\n" } unpack 'Q*', $entries;
}

# Sends the first bytes of each of COUNT pages at $base by reference: vmsplice 278 into a pipe, splice 275 to a socket.
sub send_pings {
    my ($count) = @_;
    socket my $listener, 2, 1, 0 or die "socket: $!\n";
    bind $listener, pack 'S n N x8', 2, 0, 0x7f000001 or die "bind: $!\n";
    listen $listener, 1 or die "listen: $!\n";
    socket my $out, 2, 1, 0 or die "socket: $!\n";
    connect $out, getsockname $listener or die "connect: $!\n";
    accept my $in, $listener or die "accept: $!\n";
    pipe my $read, my $write or die "pipe: $!\n";
    for my $i (0 .. $count - 1) {
        my $vector = pack 'Q2', $base + $i * $page, $ping;
        syscall(278, fileno $write, $vector, 1, 0) == $ping or die "vmsplice: $!\n";
        syscall(275, fileno $read, 0, fileno $out, 0, $ping, 0) == $ping or die "splice: $!\n";
        my $left = $ping;
        while ($left > 0) {
            my $got = sysread $in, my $bytes, $left or die "a ping did not arrive: $!\n";
            $left -= $got;
        }
    }
}

# Takes all that was recorded out of the trace: the probe's events, by name and number (old kernels print unsigned ones in hexadecimal). Other
# lines go to $rest. Nothing that happens meanwhile is lost, as it would be if the trace were read and then cleared.
my $rest = '';
sub events {
    my ($text, @found) = '';
    sysopen my $pipe, "$tracing/trace_pipe", 2048 or die "trace_pipe: $!\n";
    1 while sysread $pipe, $text, 65536, length $text;
    for (split /^/, $text) {
        if (!/ gate: \(/) {
            $rest .= $_;
            next;
        }
        my %event;
        # As numbers: & of two strings is another thing.
        for (/ (\w+=(?:0x[0-9a-f]+|\d+))/g) {
            my ($name, $value) = split /=/;
            $event{$name} = $value =~ /^0x/ ? hex $value : 0 + $value;
        }
        push @found, \%event;
    }
    return @found;
}

my $event = "$tracing/events/loopanic/gate";
sub set_probe {
    my ($definition) = @_;
    if (-d $event) {
        spit '>', "$event/enable", 0;
        spit '>>', "$tracing/kprobe_events", '-:loopanic/gate';
    }
    spit '>>', "$tracing/kprobe_events", "p:loopanic/gate $definition";
}

# Hits and misses of the probe.
sub profile {
    for (split /\n/, slurp("$tracing/kprobe_profile")) {
        return ($1, $2) if /^\s*gate\s+(\d+)\s+(\d+)/;
    }
    die "the probe is gone\n";
}

# Events that the buffer dropped, so far.
sub dropped {
    my $sum = 0;
    opendir my $cpus, "$tracing/per_cpu" or die "per_cpu: $!\n";
    for my $cpu (grep { /^cpu\d+$/ } readdir $cpus) {
        $sum += $_ for slurp("$tracing/per_cpu/$cpu/stats") =~ /^(?:overrun|commit overrun|dropped events): (\d+)/mg;
    }
    return $sum;
}

# Segments of /proc/kcore, read by address.
my ($kcore, @segments);
sub kernel_bytes {
    my ($address, $count) = @_;
    if (!$kcore) {
        open $kcore, '<', '/proc/kcore' or die "kcore: $!\n";
        sysread($kcore, my $elf, 64) == 64 or die "kcore: $!\n";
        my ($at, $size, $number) = unpack 'x32 Q x14 S S', $elf;
        sysseek $kcore, $at, 0;
        sysread($kcore, my $table, $size * $number) == $size * $number or die "kcore: $!\n";
        # Of each: its place in the file, its address, its size.
        push @segments, [unpack 'x8 Q Q x8 Q', substr $table, $_ * $size, $size] for 0 .. $number - 1;
    }
    for my $segment (@segments) {
        my ($at, $from, $size) = @$segment;
        next if $address < $from || $address + $count > $from + $size;
        sysseek $kcore, $at + ($address - $from), 0;
        my $got = sysread $kcore, my $bytes, $count;
        return defined $got && $got == $count ? $bytes : undef;
    }
    return undef;
}

# Samples of pages, a list for each kind: the frames of the page and of its head, and what kpageflags says of it.
sub samples {
    open my $flags, '<', '/proc/kpageflags' or die "kpageflags: $!\n";
    my ($last, $spanned) = (0, 0);
    for (split /\n/, slurp('/proc/zoneinfo')) {
        $spanned = $1 if /spanned\s+(\d+)/;
        $last = $1 + $spanned if /start_pfn:\s+(\d+)/ && $1 + $spanned > $last && $spanned;
    }
    # A window here and there; where that gives too few, those between them, too.
    my ($window, %kinds) = (256);
    my $step = $window * (int($last / 64 / $window) || 1);
    my @windows = map { my $shift = $_ * $window; map { $shift + $_ * $step } 0 .. $last / $step } 0 .. $step / $window - 1;
    for my $at (0 .. $#windows) {
        my $from = $windows[$at];
        last if $at % 64 == 0 && !grep { @{$kinds{$_} || []} < 100 } qw(slab slabtail plain);
        sysseek $flags, $from * 8, 0;
        my $got = sysread $flags, my $words, $window * 8 or next;
        my ($frame, $owner, $of_slab) = ($from - 1, -1, 0);
        for my $word (unpack 'Q*', $words) {
            $frame++;
            # Of those that are neither, a few will do.
            if (!($word & ($slab | $head | $tail))) {
                $owner = -1;
                next if $frame % 16;
            }
            my $kind;
            if ($word & $tail) {
                next if $owner < 0;
                $kind = $of_slab ? 'slabtail' : 'othertail';
            } else {
                ($owner, $of_slab) = $word & $head ? ($frame, $word & $slab) : (-1, 0);
                next if $word & $none;
                $kind = $word & $slab ? 'slab' : $word & $head ? 'otherhead' : 'plain';
            }
            # Not the first ones alone: every window gives some.
            my $list = $kinds{$kind} ||= [];
            push @$list, [$frame, $owner < 0 ? $frame : $owner, $word];
        }
    }
    for my $list (values %kinds) {
        next if @$list <= 300;
        my $every = @$list / 300;
        @$list = map { $list->[int($_ * $every)] } 0 .. 299;
    }
    # Whether the page of a sample is still what it was.
    my $still = sub {
        my ($sample) = @_;
        sysseek $flags, $sample->[0] * 8, 0;
        my $got = sysread $flags, my $word, 8;
        return $got == 8 && unpack('Q', $word) == $sample->[2];
    };
    return (\%kinds, $still);
}

sub start {
    # The kernel refuses a probe on what it does not have.
    my ($why, $function);
    for my $name (@functions) {
        eval { set_probe($name); 1 } or do { $why = $@; next };
        $function = $name;
        last;
    }
    die "no probe can be set on @functions: $why" if !defined $function;
    # Where the call has its page, offset and size: arguments of their own, or those of the first segment of an iov_iter, whose place in it
    # differs from kernel to kernel.
    my @places = $function =~ /iter/
        ? map { ["+0(+$_(%si))", "+12(+$_(%si)):u32", "+8(+$_(%si)):u32"] } 8, 16, 24, 32, 40
        : (['%si', '%dx:u32', '%cx:u64']);
    my @frames = own_frames(8);
    my ($place, $size, $first, $counts_faults);
    for my $try (@places) {
        my ($at, $offset, $length) = @$try;
        # The last page of all is never mapped. Kernels before 5.14 count what the probe itself could not read as calls that it missed: then that
        # number says nothing. (What it does miss are calls in the middle of another probe, and there is no other.)
        set_probe("$function page=$at:u64 off=$offset size=$length unmapped=\@0xfffffffffffff000:u64");
        spit '>', "$event/enable", 1;
        send_pings(scalar @frames);
        spit '>', "$event/enable", 0;
        my @seen = map { $_->{page} } grep { $_->{size} == $ping } events();
        $counts_faults = (profile())[1] ? 1 : 0;
        next if @seen != @frames;
        # Addresses are to frames as struct page is to 1.
        for my $i (1 .. $#frames) {
            my $apart = $frames[$i] - $frames[0] or next;
            my $bytes = ($seen[$i] - $seen[0]) / $apart;
            ($size, $first) = ($bytes, $seen[0] - $frames[0] * $bytes);
            last;
        }
        next if !$size || $size != int $size || $size < 32 || $size > 256 || $size % 8;
        next if grep { $first + $frames[$_] * $size != $seen[$_] } 0 .. $#frames;
        $place = $try;
        last;
    }
    die "the addresses that $function is called with are not those of the pages that were sent\n" if !$place;

    my ($kinds, $still) = samples();
    my %pages;
    for my $kind (keys %$kinds) {
        for my $sample (@{$kinds->{$kind}}) {
            my $bytes = kernel_bytes($first + $sample->[0] * $size, $size);
            push @{$pages{$kind}}, [$bytes, $first + $sample->[1] * $size] if defined $bytes && $still->($sample);
        }
    }
    my $all = sub { map { @{$pages{$_} || []} } @_ };
    my @tails = $all->('slabtail', 'othertail');
    my @slabs = $all->('slab');
    my @others = $all->('otherhead', 'plain');
    for (['slab', \@slabs], ['tail', \@tails], ['other', \@others]) {
        my ($what, $list) = @$_;
        die 'only ' . @$list . " $what pages could be looked at\n" if @$list < 30;
    }

    # The word in which a tail names its head, and what is added there: 1 where the same word says that it is a tail.
    my ($head_at, $plus);
    WORD: for (my $at = 0; $at < $size; $at += 8) {
        my $more;
        for my $sample (@tails) {
            my $apart = unpack("x$at Q", $sample->[0]) - $sample->[1];
            next WORD if ($apart != 0 && $apart != 1) || (defined $more && $apart != $more);
            $more = $apart;
        }
        ($head_at, $plus) = ($at, $more);
        last;
    }
    die "where a tail page names its head is unknown\n" if !defined $head_at;
    # bit(AT, MASK, LIST): how many of them have it.
    my $having = sub {
        my ($at, $mask, $list) = @_;
        return scalar grep { unpack("x$at Q", $_->[0]) & $mask } @$list;
    };
    my @not_tails = (@slabs, @others);
    my ($tail_at, $tail_mask) = $plus ? ($head_at, 1) : (0, 0);
    for my $bit ($plus ? () : 0 .. 31) {
        my $mask = 1 << $bit;
        next if $having->(0, $mask, \@tails) < @tails || $having->(0, $mask, \@not_tails);
        $tail_mask = $mask;
        last;
    }
    die "what marks a tail page is unknown\n" if !$tail_mask || $having->($tail_at, $tail_mask, \@not_tails);

    # A flag of its first word, or a byte of a word that is no pointer (6.10 and later: the page's type).
    my ($slab_at, $slab_test, $type) = (0, undef, 'u64');
    my @masks = grep { $having->(0, $_, \@slabs) == @slabs && !$having->(0, $_, \@others) } map { 1 << $_ } 0 .. 31;
    # Where all slabs are compound pages, and no other was seen, what marks a head could pass for it: then there is another such flag, or it is
    # the type.
    my $is_told_apart = @{$pages{otherhead} || []} || grep { !($_->[2] & $head) } @{$kinds->{slab}};
    if (@masks > 1 || (@masks == 1 && $is_told_apart)) {
        $slab_test = "& $masks[0]";
    } else {
        BYTE: for my $at (8 .. $size - 1) {
            my $word = $at - $at % 8;
            next if grep { unpack("x$word Q", $_->[0]) >> 47 } @slabs;
            my $value = unpack "x$at C", $slabs[0][0];
            next if grep { unpack("x$at C", $_->[0]) != $value } @slabs;
            next if grep { unpack("x$at C", $_->[0]) == $value } @others;
            ($slab_at, $slab_test, $type) = ($at, "== $value", 'u8');
            last;
        }
    }
    die "what marks a slab page is unknown\n" if !defined $slab_test;

    # A flag of the first page of a compound one, if it is in the word that slabs are told by: what is of no compound page cannot leak across one.
    my ($head_mask) = grep {
        my $mask = $_;
        $having->(0, $mask, $pages{otherhead} || []) == @{$pages{otherhead} || []} && !$having->(0, $mask, $pages{plain});
    } map { 1 << $_ } 0 .. 31;
    $head_mask = 0 if !defined $head_mask || $slab_at != 0 || !@{$pages{otherhead} || []};

    my ($at, $offset, $length) = @$place;
    my $up = $slab_at - $plus;
    $up = "+$up" if $up >= 0;
    set_probe("$function page=$at:u64 off=$offset size=$length own=+$slab_at($at):$type tb=+$tail_at($at):u64"
            . " hs=$up(+$head_at($at)):$type hd=+$head_at($at):u64");
    # A piece of several pages (the headers of requests have less than 128 bytes); or a slab page. Kernels before 3.11 know no & there: what is
    # as large as a page lies in no slab that a file system's buffers are in.
    my @filters = $kind_of_leak eq 'across-pages'
        ? ("(size > 128 && off > 0) || size > $page || size == $ping")
        : ("(own $slab_test) || ((tb & $tail_mask) && (hs $slab_test)) || (size == $ping)", "size < $page");
    my $refused = '';
    for my $filter (@filters) {
        $refused = '';
        eval { spit '>', "$event/filter", $filter; 1 } and last;
        $refused = $@;
    }
    die $refused if $refused;
    spit '>', "$event/enable", 1;
    my ($hits, $missed) = profile();
    my ($test, $value) = split ' ', $slab_test;
    spit '>', $note, join ' ', $kind_of_leak, $test, $first, $size, $tail_mask, $plus, $value, $head_mask, $counts_faults, $hits, $missed, dropped();
    $slab_test =~ s/ //g;
    print "function=$function page=$size slab=$slab_at:$slab_test tail=$tail_at:&$tail_mask head=$head_at:-$plus faults=$counts_faults\n";
}

# First and last frame of the compound page that FRAME is part of, as it is now; itself twice, if it is of none.
my $kpageflags;
sub compound {
    my ($frame) = @_;
    if (!$kpageflags) {
        open $kpageflags, '<', '/proc/kpageflags' or die "kpageflags: $!\n";
    }
    my $flags_of = sub {
        sysseek $kpageflags, $_[0] * 8, 0;
        my $got = sysread $kpageflags, my $word, 8;
        return $got ? unpack 'Q', $word : 0;
    };
    my ($from, $to) = ($frame, $frame);
    $from-- while $from > 0 && $flags_of->($from) & $tail;
    $to++ while $flags_of->($to + 1) & $tail;
    return $flags_of->($from) & $head ? ($from, $to) : ($frame, $frame);
}

sub count {
    my ($kind, $test, @numbers) = split ' ', slurp($note);
    my ($first, $size, $tail_mask, $plus, $value, $head_mask, $counts_faults, $hits, $missed, $lost_before) = map { 0 + $_ } @numbers;
    my @own = map { $first + $_ * $size } own_frames(2);
    send_pings(2);
    my $marked = sub { $test eq '&' ? $_[0] & $value : $_[0] == $value };
    my (%count, $before, @shown);
    $count{$_} = 0 for qw(leaked leakedheads leakedtails neighbours);
    my ($pings, $unknown) = (0, 0);
    my @events = events();
    # Whatever becomes of the reading.
    spit '>>', '/run/loopanic-trace', $rest;
    for my $seen (@events) {
        if ($seen->{size} == $ping && grep { $_ == $seen->{page} } @own) {
            $pings++;
            next;
        }
        my $is_tail = $seen->{tb} & $tail_mask;
        my $is_leak = $marked->($is_tail ? $seen->{hs} : $seen->{own});
        if ($kind eq 'across-pages') {
            my $frame = ($seen->{page} - $first) / $size;
            my $of = $is_tail ? ($seen->{hd} - $plus - $first) / $size : $frame;
            my ($from, $to) = map { $frame + ($_ >> 12) } $seen->{off}, $seen->{off} + $seen->{size} - 1;
            next if $from == $to || ($head_mask && !$is_tail && !($seen->{own} & $head_mask));
            my ($owner, $end) = compound($frame);
            # It is not what it was when it was sent: whether it ended there is not known.
            $unknown++ if $owner != $of;
            $is_leak = $end > $owner && $to > $end;
        }
        if (!$is_leak) {
            $before = undef;
            next;
        }
        $count{leaked}++;
        $count{$is_tail ? 'leakedtails' : 'leakedheads'}++;
        $count{neighbours}++
            if $before && $before->{page} == $seen->{page} && $before->{off} + $before->{size} == $seen->{off};
        $before = $seen;
        push @shown, sprintf 'page %x offset %d size %d head %x', @{$seen}{'page', 'off', 'size'},
            $is_tail ? $seen->{hd} - $plus : $seen->{page}
            if @shown < 3;
    }
    my ($now, $missed_now) = profile();
    my $dropped = dropped();
    my $others = $now - $hits - $count{leaked} - $pings;
    my $lost = ($counts_faults ? 0 : $missed_now - $missed) + abs($dropped - $lost_before) + abs(2 - $pings) + $unknown;
    # Fewer calls than events: the probe was set anew.
    ($lost, $others) = ($lost - $others, 0) if $others < 0;
    spit '>', $note, join ' ', $kind, $test, $first, $size, $tail_mask, $plus, $value, $head_mask, $counts_faults, $now, $missed_now, $dropped;
    print join(' ', map { "$_=$count{$_}" } qw(leaked leakedheads leakedtails neighbours)), " others=$others gatelost=$lost\n";
    print STDERR "leaked: $_\n" for @shown;
    printf STDERR "lost: %d missed by the probe, %d dropped by the buffer, %d pings of 2, %d unknown pages\n", $missed_now - $missed,
        $dropped - $lost_before, $pings, $unknown if $lost;
}

$verb eq 'start' ? start() : count();
