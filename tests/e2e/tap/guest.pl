# Runs in a machine: what its user could try. Perl, since Debian's smallest disk has it.
#
#   tcp ADDRESS PORT          open TEXT | refused | silent
#   udp ADDRESS PORT WORD     answered | refused | silent
#   scan ADDRESS FIRST LAST   the ports that let it in, or "none"
#   frame HEX                 sends an Ethernet frame as it is: sent
#   arp HEX                   the same, and what comes back: answered | silent
#   hold ADDRESS PORT         connects, says "held TEXT", then for each line of its input: what the
#                             server echoes, or "cut"
use strict;
use warnings;
use Socket;
use IO::Socket::INET;
use IO::Select;

$| = 1;
my ($act, @words) = @ARGV;
my $patience = 1.5;

sub wait_for { return IO::Select->new($_[0])->can_read($patience) }

sub tcp {
    my ($address, $port) = @_;
    my $made = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => $patience);
    return ($made, '') if $made;
    return (undef, $!{ETIMEDOUT} || $@ =~ /timeout/i ? 'silent' : 'refused');
}

# A packet socket on the card (packet(7)); its address is family, protocol, index, and zeroes.
sub card {
    socket(my $raw, 17, SOCK_RAW, unpack('S', pack('n', 3))) or die "packet: $!";
    open(my $file, '<', '/sys/class/net/eth0/ifindex') or die "index: $!";
    my $index = <$file>;
    bind($raw, pack('S n i S C C a8', 17, 3, $index, 0, 0, 0, '')) or die "bind: $!";
    return $raw;
}

if ($act eq 'tcp') {
    my ($made, $why) = tcp(@words);
    my $text = '';
    if ($made) {
        $text = <$made> // '' if wait_for($made);
        chomp $text;
    }
    print $made ? "open $text\n" : "$why\n";
} elsif ($act eq 'udp') {
    my ($address, $port, $word) = @words;
    my $made = IO::Socket::INET->new(Proto => 'udp', PeerAddr => $address, PeerPort => $port)
        or die $@;
    my $sent = $made->send($word);
    if ($sent && wait_for($made)) {
        print defined $made->recv(my $back, 2048) ? "answered\n" : "refused\n";
    } else {
        print $sent ? "silent\n" : "refused\n";
    }
} elsif ($act eq 'scan') {
    my ($address, $first, $last) = @words;
    my @found = grep { (tcp($address, $_))[0] } $first .. $last;
    print @found ? "@found\n" : "none\n";
} elsif ($act eq 'frame' || $act eq 'arp') {
    my $raw = card();
    send($raw, pack('H*', $words[0]), 0) or die "send: $!";
    my $answer = 'sent';
    if ($act eq 'arp') {
        $answer = 'silent';
        while (wait_for($raw)) {
            recv($raw, my $frame, 2048, 0);
            my ($kind, $what) = (unpack('x12 n', $frame), unpack('x20 n', $frame));
            if ($kind == 0x0806 && $what == 2) { $answer = 'answered'; last }
        }
    }
    print "$answer\n";
} elsif ($act eq 'hold') {
    my ($made, $why) = tcp(@words);
    if (!$made) { print "$why\n"; exit }
    my $text = <$made>;
    print "held $text";
    while (my $line = <STDIN>) {
        local $SIG{PIPE} = 'IGNORE';
        my $back = $made->send($line) && wait_for($made) ? <$made> : undef;
        print $back // "cut\n";
        last unless defined $back;
    }
}
