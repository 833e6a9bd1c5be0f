vcl 4.1;
import std;

backend default { .host = "127.0.0.1"; .port = "@UPSTREAM@"; }

sub vcl_recv {
  # Varnish 7.1 ends a chunked upload in order when its client breaks it off, and S3 would store a cut object.
  if (req.http.Transfer-Encoding && !std.cache_req_body(64MB)) {
    return (synth(413));
  }
}

sub vcl_backend_response {
  if (beresp.http.Content-Type ~ "^text/") { set beresp.do_gzip = true; }
}
