# Runs in a machine: what its user could try. Perl, since Debian's smallest disk has it. Each line
# of its input is one act, answered by a line; emulated machines begin programs slowly.
#
#   tcp ADDRESS PORT          open TEXT | refused | silent; by IPv6 too, ADDRESS%CARD if it is local
#   udp ADDRESS PORT WORD     answered | refused | silent
#   scan ADDRESS FIRST LAST   the ports that let it in, or "none"
#   frame HEX [CARD]          sends an Ethernet frame as it is, by eth0 or CARD: sent
#   arp HEX...                the same with each, until the last has its answer: answered ADDRESS...
#   hold ADDRESS PORT         connects, says "held TEXT", then for each further line of its input:
#                             what the server echoes, or "cut"
use strict;
use warnings;
use Socket;
use IO::Socket::INET;
use IO::Select;

$| = 1;
# A busy host is waited for; what stays silent costs as long.
my $patience = 4;

sub wait_for { return IO::Select->new($_[0])->can_read($patience) }

sub tcp {
    my ($address, $port) = @_;
    my $kind = $address =~ /:/ ? 'IO::Socket::IP' : 'IO::Socket::INET';
    # Which takes its time.
    require IO::Socket::IP if $address =~ /:/;
    my $made = $kind->new(PeerHost => $address, PeerPort => $port, Timeout => $patience);
    return ($made, '') if $made;
    return (undef, $!{ETIMEDOUT} || $@ =~ /timeout/i ? 'silent' : 'refused');
}

# A packet socket on the card (packet(7)); its address is family, protocol, index, and zeroes.
sub card {
    my $name = shift // 'eth0';
    socket(my $raw, 17, SOCK_RAW, unpack('S', pack('n', 3))) or die "packet: $!";
    open(my $file, '<', "/sys/class/net/$name/ifindex") or die "index: $!";
    my $index = <$file>;
    bind($raw, pack('S n i S C C a8', 17, 3, $index, 0, 0, 0, '')) or die "bind: $!";
    return $raw;
}

sub try_tcp {
    my ($made, $why) = tcp(@_);
    return $why unless $made;
    my $text = wait_for($made) ? <$made> // '' : '';
    chomp $text;
    return "open $text";
}

sub try_udp {
    my ($address, $port, $word) = @_;
    my $made = IO::Socket::INET->new(Proto => 'udp', PeerAddr => $address, PeerPort => $port)
        or die $@;
    return 'refused' unless $made->send($word);
    return 'silent' unless wait_for($made);
    return defined $made->recv(my $back, 2048) ? 'answered' : 'refused';
}

sub try_scan {
    my ($address, $first, $last) = @_;
    my @found = grep { (tcp($address, $_))[0] } $first .. $last;
    return @found ? "@found" : 'none';
}

sub try_frame {
    my $raw = card($_[1]);
    send($raw, pack('H*', $_[0]), 0) or die "send: $!";
    return 'sent';
}

sub try_arp {
    my @frames = map { pack 'H*', $_ } @_;
    my $raw = card();
    for my $frame (@frames) { send($raw, $frame, 0) or die "send: $!" }
    # The address that the last one asks for; in an answer it is the sender's.
    my $last = inet_ntoa(substr $frames[-1], 38, 4);
    my %known;
    while (!$known{$last} && wait_for($raw)) {
        recv($raw, my $frame, 2048, 0);
        next if unpack('x12 n', $frame) != 0x0806 || unpack('x20 n', $frame) != 2;
        $known{ inet_ntoa(substr $frame, 28, 4) } = 1;
    }
    return join ' ', 'answered', sort keys %known;
}

sub hold {
    my ($made, $why) = tcp(@_);
    return $why unless $made;
    print 'held ', scalar <$made>;
    local $SIG{PIPE} = 'IGNORE';
    while (my $line = <STDIN>) {
        my $back = $made->send($line) && wait_for($made) ? <$made> : undef;
        return 'cut' unless defined $back;
        print $back;
    }
    return 'ended';
}

my %acts = (tcp => \&try_tcp, udp => \&try_udp, scan => \&try_scan, frame => \&try_frame,
    arp => \&try_arp, hold => \&hold);
while (my $line = <STDIN>) {
    my ($act, @words) = split ' ', $line;
    print $acts{$act}->(@words), "\n";
}
