-- W3C Trace Context of the request that submitted it, carried to its sandbox and its webhooks.
ALTER TABLE invocations ADD COLUMN traceparent text;
