vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "@UPSTREAM@"; }
sub vcl_backend_response {
  if (beresp.http.Content-Type ~ "^text/") { set beresp.do_gzip = true; }
}
