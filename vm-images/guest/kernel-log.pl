# kernel-log.pl TOKEN: prints what the kernel logged since this trial's first marker, whatever its level, from /dev/kmsg: records there are
# numbered, so that the reader can tell whether all have arrived. One line each to the second serial port: "@TOKEN kmsg NUMBER LEVEL TEXT";
# on stdout how many, for the console. Returns only when the port has sent them.
# 2048: O_NONBLOCK; 11: EAGAIN, no more records; 32: EPIPE, some were overwritten; 0x5409 with 1: tcdrain.
my ($token) = @ARGV;
open my $port, '>', '/dev/ttyS1' or die "open /dev/ttyS1: $!\n";
sysopen my $log, '/dev/kmsg', 2048 or die "open /dev/kmsg: $!\n";
my ($begun, $records, $first, $last, $out) = (0, 0, 0, 0, '');
# Whole lines in one write: the heartbeat's come in between.
sub send_out {
    while (length $out) {
        my $sent = syswrite $port, $out;
        die "write: $!\n" if !defined $sent;
        substr($out, 0, $sent) = '';
    }
}
while (1) {
    my $length = sysread $log, my $record, 8192;
    if (!defined $length) {
        last if $! == 11;
        next if $! == 4;
        die "read /dev/kmsg: $!\n" if $! != 32;
        # Before the first marker nothing is missed.
        $out .= "\@$token kmsg.lost\n" if $begun;
        next;
    }
    my ($head, $text) = split /;/, (split /\n/, $record)[0], 2;
    my ($priority, $number) = split /,/, $head;
    $begun ||= $text =~ /^loopanic:$token:1: /;
    next if !$begun;
    $first = $number if $records++ == 0;
    $last = $number;
    $out .= "\@$token kmsg $number " . ($priority & 7) . " $text\n";
    send_out() if length $out > 2000;
}
$out .= "\@$token kmsg.end $first $last\n";
send_out();
ioctl $port, 0x5409, 1;
print "records=$records last=$last\n";
