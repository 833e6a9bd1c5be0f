-- Requests as they come from many clients: cookies, addresses and ids differ from one to the next.
-- Arguments: mode (get, range, match), size of the objects in bytes, then for each object its path, and with `match`
-- its ETag behind a "|".
local agents = {
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36",
  "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
  "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
  "Lavf/60.16.100",
}
local requests, last = {}, 0

function init(args)
  math.randomseed(4)
  local mode, size, objects = args[1], tonumber(args[2]), #args - 2
  for number = 1, 2000 do
    local path, etag = args[2 + number % objects + 1]:match("([^|]+)|?(.*)")
    local lines = {
      "GET " .. path .. " HTTP/1.1",
      "Host: cdn.example.com",
      "User-Agent: " .. agents[math.random(#agents)],
      "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
      "Accept-Language: en-US,en;q=0.9,de;q=0.8",
      "Accept-Encoding: gzip, deflate, br, zstd",
      string.format("Cookie: session=%08x%08x; theme=dark; _ga=GA1.2.%d", math.random(0, 2 ^ 31 - 1),
        math.random(0, 2 ^ 31 - 1), math.random(1, 1e9)),
      string.format("X-Forwarded-For: 203.0.113.%d, 10.0.0.%d", math.random(254), math.random(254)),
      string.format("X-Request-Id: %08x-70d4-4f5c-a5bb-%08x", math.random(0, 2 ^ 31 - 1), math.random(0, 2 ^ 31 - 1)),
    }
    if mode == "range" then
      local start = math.random(0, size - 65536)
      lines[#lines + 1] = string.format("Range: bytes=%d-%d", start, start + 65535)
    elseif mode == "match" then
      lines[#lines + 1] = "If-None-Match: " .. etag
    end
    requests[number] = table.concat(lines, "\r\n") .. "\r\n\r\n"
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end
