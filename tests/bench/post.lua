-- wrk: one prepared POST, over and over; a line of JSON at the end. The body and headers come from the environment.
wrk.method = "POST"
wrk.path = os.getenv("BENCH_PATH")
wrk.body = os.getenv("BENCH_BODY")
if os.getenv("BENCH_FRAME") then -- as Connect envelopes a message: no flags, four bytes of length
    local n = #wrk.body
    wrk.body = string.char(0, math.floor(n / 16777216) % 256, math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256)
        .. wrk.body
end
wrk.headers["Content-Type"] = "application/json"
for line in (os.getenv("BENCH_HEADERS") or ""):gmatch("[^\n]+") do
    local name, value = line:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format(
        '\n{"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"late":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
        summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write, e.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
