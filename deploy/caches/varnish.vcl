# Varnish before jwksd.
vcl 4.1;

backend jwksd {
    .host = "127.0.0.1";
    .port = "8080";
    .probe = { .url = "/.well-known/jwks.json"; .interval = 5s; }
}

sub vcl_recv {
    # One variant of each document, or two.
    set req.url = regsub(req.url, "\?.*$", "");
    if (req.http.Accept !~ "application/jwk-set\+json") {
        set req.http.Accept = "application/json";
    }
    unset req.http.Cookie;
}

sub vcl_backend_response {
    # Its default of 10 s would be served after the end of a key; jwksd's stale-while-revalidate=0 says
    # the same.
    set beresp.grace = 0s;
    # To be validated by its ETag.
    set beresp.keep = 10m;
    # In the last second of a key max-age is 0: not a reason to let everybody through for two minutes.
    if (beresp.ttl <= 0s) {
        set beresp.uncacheable = true;
        set beresp.ttl = 1s;
        return (deliver);
    }
}
