# Fastly in front of bucketfront: snippets of the subroutines that they are named after.

# recv: ranges of large objects are fetched in segments, each of which is cached by itself.
if (req.url.path ~ "\.(mp4|m4s|ts|webm|mov|zip)$") {
  set req.enable_segmented_caching = true;
}
# Queries name no other object.
set req.url = req.url.path;

# fetch: bucketfront sends the lifetimes. It serves stale while S3 fails; this is for the time when it restarts itself.
if (beresp.status >= 500 && beresp.status < 600 && stale.exists) {
  return(deliver_stale);
}
set beresp.stale_if_error = 86400s;
set beresp.stale_while_revalidate = 60s;
# Tags by which `fastly purge --key` purges. They reach bucketfront as x-amz-meta-cache-tag of the object.
if (beresp.http.x-amz-meta-cache-tag) {
  set beresp.http.Surrogate-Key = regsuball(beresp.http.x-amz-meta-cache-tag, "[ ,]+", " ");
}
