# Varnish in front of bucketfront: small and hot objects in memory, the rest from bucketfront's disk.
vcl 4.1;

import std;

backend default {
  .host = "127.0.0.1";
  .port = "8080";
  .first_byte_timeout = 60s;
  .between_bytes_timeout = 60s;
}

acl local {
  "127.0.0.1";
  "::1";
}

sub vcl_recv {
  # A purge of the app has to reach Varnish as well, which keeps copies of its own.
  if (req.method == "PURGE") {
    if (!client.ip ~ local) { return (synth(403)); }
    return (purge);
  }
  # Varnish would end a chunked upload in order when its client breaks it off, and S3 would store a cut object.
  if (req.http.Transfer-Encoding && !std.cache_req_body(64MB)) {
    return (synth(413));
  }
  # Varnish fetches whole objects for a range. bucketfront serves ranges from its disk, so they pass.
  if (req.http.Range) {
    return (pass);
  }
}

sub vcl_backend_response {
  if (std.integer(beresp.http.Content-Length, 0) > 16777216) {
    set beresp.uncacheable = true;
    set beresp.ttl = 2m;
  }
}
