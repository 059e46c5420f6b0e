# A service that has never heard of keys: it answers each request with that request (message/http).
#   perl upstream.pl PORT LOG [STATUS]
# The answer's status is STATUS, else what the path says, /status/503, else 200. Before it answers,
# it appends the request's head and the length of its body to LOG.
use strict;
use warnings;
use IO::Socket::INET;

my ($port, $log, $always) = @ARGV;
$SIG{CHLD} = 'IGNORE';
my $listener = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 128, ReuseAddr => 1
) or die "Cannot listen on $port: $@";

while (my $client = $listener->accept) {
    next if fork // die "Cannot fork: $!";
    close $listener;
    answer($client);
    exit;
}

sub answer {
    my ($client) = @_;
    my $head = do { local $/ = "\r\n\r\n"; <$client> } // return;
    my $body = body($client, $head);
    open my $lines, '>>', $log or die "Cannot open $log: $!";
    syswrite $lines, "${head}[" . length($body) . "]\n\n";
    my $status = $always // ($head =~ m{\A\S+ /status/(\d{3})[ ?]} ? $1 : 200);
    print {$client} join "\r\n", "HTTP/1.1 $status Upstream", 'X-Api-Key-Id: nobody',
        'X-Api-Key-Name: Nobody', 'WWW-Authenticate: Basic realm="upstream"', 'Retry-After: 99',
        'Connection: close', '';
    return print {$client} "\r\n" if $status == 204;
    print {$client} "Content-Type: message/http\r\nContent-Length: ",
        length "$head$body", "\r\n\r\n$head$body";
}

sub body {
    my ($client, $head) = @_;
    my $body = '';
    if ($head =~ /^transfer-encoding:\s*chunked/im) {
        local $/ = "\r\n";
        while (1) {
            chomp(my $size = <$client>);
            read $client, my $chunk, hex $size;
            $body .= $chunk;
            <$client>;
            last unless hex $size;
        }
    }
    elsif ($head =~ /^content-length:\s*(\d+)/im) {
        read $client, $body, $1;
    }
    return $body;
}
