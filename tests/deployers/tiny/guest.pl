# GET /fastapi/healthz; POST /run, /say, /exit take their argument as the body.
use strict;
use IO::Socket::INET;

$| = 1;
$SIG{CHLD} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalPort => $ARGV[0] || 80, Listen => 64, ReuseAddr => 1)
    or die "cannot listen: $!";

while (1) {
    my $client = $listener->accept or next;
    my ($request, $length) = (scalar(<$client>), 0);
    while (defined(my $line = <$client>)) {
        $line =~ s/\r?\n//;
        $length = $1 if $line =~ /^content-length:\s*(\d+)/i;
        last if $line eq '';
    }
    read $client, my $body, $length;
    my ($path) = $request =~ m{^\S+ (\S+)} or next;
    if ($path eq '/fastapi/healthz') { answer($client, 0, 'OK') }
    elsif ($path eq '/say') { print "$body\n"; answer($client, 0, '') }
    elsif ($path eq '/exit') { answer($client, 0, ''); exit $body }
    elsif ($path eq '/run' && !fork) {
        $SIG{CHLD} = 'DEFAULT';
        close $listener;
        open my $shell, '-|', 'sh', '-c', "exec 2>&1\n$body" or die "cannot fork: $!";
        my $output = do { local $/; <$shell> };
        close $shell;
        answer($client, $? & 127 ? 128 + ($? & 127) : $? >> 8, $output);
        exit;
    }
    close $client;
}

sub answer {
    my ($client, $code, $body) = @_;
    my $length = length $body;
    print $client "HTTP/1.1 200 OK\r\nX-Exit-Code: $code\r\nContent-Length: $length\r\n",
        "Connection: close\r\n\r\n", $body;
}
