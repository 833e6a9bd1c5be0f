# Cloudflare in front of bucketfront: cache what bucketfront serves, by the lifetimes that it sends.
#
# Cloudflare purges by the tags of `Cache-Tag`, so one deploy step purges both: see docs/operations.md.

variable "zone_id" {
  type = string
}

variable "hostname" {
  type    = string
  default = "media.example.com"
}

resource "cloudflare_ruleset" "media" {
  zone_id = var.zone_id
  name    = "media by bucketfront"
  kind    = "zone"
  phase   = "http_request_cache_settings"

  rules = [{
    ref         = "media"
    description = "Cache by the lifetimes of the origin"
    expression  = "(http.host eq \"${var.hostname}\")"
    action      = "set_cache_settings"
    action_parameters = {
      cache       = true
      edge_ttl    = { mode = "respect_origin" }
      browser_ttl = { mode = "respect_origin" }
      cache_key = {
        custom_key = {
          query_string = { exclude = { all = true } }
        }
      }
      serve_stale = { disable_stale_while_updating = false }
    }
  }]
}
