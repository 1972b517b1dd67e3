"""Malformed and ambiguous HTTP, sent raw to the gateway and to the sandbox host: each request is refused or its
connection is closed, and the request planted behind it is never served.

A row is a name, the bytes and what may be answered; 400 where nothing is said. In the bytes, <post> stands for a request
line with Host and key, <host> for the Host line, <key> for the key's line, <path> for a path that takes a POST. The planted
request is a whole one: were it read as a request, it would leave a second answer and a trace (an invocation, a sandbox)."""

import json
import re
import socket
import time

import pytest

from stack import BIN, E2B_KEY, until

OVER = 16 * 1024  # the limit on a head

# ---- the table ----

LENGTHS = [
    ("two equal lengths", "<post>Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
    ("two differing lengths", "<post>Content-Length: 2\r\nContent-Length: 400\r\n\r\n{}"),
    ("two differing lengths, the shorter one last", "<post>Content-Length: 400\r\nContent-Length: 2\r\n\r\n{}"),
    ("two lengths in different cases", "<post>Content-Length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    ("a list of equal lengths", "<post>Content-Length: 2, 2\r\n\r\n{}"),
    ("a list of differing lengths", "<post>Content-Length: 2, 400\r\n\r\n{}"),
    ("a list with an empty member", "<post>Content-Length: 2,\r\n\r\n{}"),
    ("a list, empty member first", "<post>Content-Length: ,2\r\n\r\n{}"),
    ("a length with plus", "<post>Content-Length: +2\r\n\r\n{}"),
    ("a negative length", "<post>Content-Length: -2\r\n\r\n{}"),
    ("minus zero", "<post>Content-Length: -0\r\n\r\n"),
    ("a hexadecimal length", "<post>Content-Length: 0x2\r\n\r\n{}"),
    ("hexadecimal digits", "<post>Content-Length: a\r\n\r\n{}"),
    ("a length with a letter behind", "<post>Content-Length: 2b\r\n\r\n{}"),
    ("a length with a fraction", "<post>Content-Length: 2.0\r\n\r\n{}"),
    ("a length with an exponent", "<post>Content-Length: 2e0\r\n\r\n{}"),
    ("a length with an underscore", "<post>Content-Length: 0_2\r\n\r\n{}"),
    ("a length with a blank inside", "<post>Content-Length: 2 2\r\n\r\n{}"),
    ("a length with a tab inside", "<post>Content-Length: 2\t2\r\n\r\n{}"),
    ("a length in quotes", "<post>Content-Length: \"2\"\r\n\r\n{}"),
    ("an empty length", "<post>Content-Length:\r\n\r\n{}"),
    ("a blank length", "<post>Content-Length: \t \r\n\r\n{}"),
    ("2 to the 64th and 2", "<post>Content-Length: 18446744073709551618\r\n\r\n{}"),
    ("2 to the 63rd", "<post>Content-Length: 9223372036854775808\r\n\r\n{}"),
    ("2 to the 32nd and 2, over the limit", "<post>Content-Length: 4294967298\r\n\r\n{}", {413}),
    ("a length of 200 digits", "<post>Content-Length: " + "9" * 200 + "\r\n\r\n{}"),
    ("a length with a vertical tab", "<post>Content-Length: 2\v\r\n\r\n{}"),
    ("a length with a form feed", "<post>Content-Length: \f2\r\n\r\n{}"),
    ("a length with a no-break space", "<post>Content-Length: 2\xa0\r\n\r\n{}"),
    ("a length in full-width digits", "<post>Content-Length: \xef\xbc\x92\r\n\r\n{}"),
    ("a length with a semicolon", "<post>Content-Length: 2;\r\n\r\n{}"),
    ("an underscore for the hyphen in the name, and a real length", "<post>Content-Length: 2\r\nContent-Length : 9\r\n\r\n{}"),
]

CODINGS = [
    ("length, then chunked", "<post>Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked, then length", "<post>Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n"),
    ("chunked and a length of zero", "<post>Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"),
    ("chunked and a bad length", "<post>Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n0\r\n\r\n"),
    ("identity and a length", "<post>Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}"),
    ("an empty coding and a length", "<post>Transfer-Encoding:\r\nContent-Length: 2\r\n\r\n{}"),
    ("chunked, identity", "<post>Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("identity, chunked", "<post>Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked, chunked", "<post>Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked twice in two lines", "<post>Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked, then identity in another line", "<post>Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    ("identity, then chunked in another line", "<post>Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("gzip, chunked", "<post>Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked, gzip", "<post>Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("xchunked", "<post>Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunkedx", "<post>Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n"),
    ("chunked with a parameter", "<post>Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    ("chunked in quotes", "<post>Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("chunked with an empty member", "<post>Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    ("chunked with a comma behind", "<post>Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    ("chunked with a vertical tab before", "<post>Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"),
    ("chunked with a vertical tab behind", "<post>Transfer-Encoding: chunked\v\r\n\r\n0\r\n\r\n"),
    ("chunked with a NUL behind", "<post>Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n"),
    ("chunked with a no-break space", "<post>Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n"),
    ("chunked behind a fold", "<post>Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("chunked behind a fold with a tab", "<post>Transfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n"),
    ("a blank before the colon of the coding", "<post>Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("a tab before the colon of the coding", "<post>Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a bare CR before the coding", "<post>X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a bare LF before the coding", "<post>X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked in HTTP/1.0", "POST <path> HTTP/1.0\r\n<host><key>Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("trailers' name as coding", "<post>Transfer-Encoding: trailers\r\n\r\n0\r\n\r\n"),
]

CHUNKED = "<post>Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = [(name, CHUNKED + text, *rest) for name, text, *rest in [
    ("a negative chunk", "-2\r\n{}\r\n0\r\n\r\n"),
    ("a chunk with plus", "+2\r\n{}\r\n0\r\n\r\n"),
    ("a chunk's size with 0x", "0x2\r\n{}\r\n0\r\n\r\n"),
    ("no chunk size", "\r\n{}\r\n0\r\n\r\n"),
    ("a size of letters", "zz\r\n{}\r\n0\r\n\r\n"),
    ("a size over 64 bits", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
    ("a size of 17 f", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    ("a chunk over the limit", "7fffffffffffffff\r\n{}", {400, 413}),
    ("a blank before the size", " 2\r\n{}\r\n0\r\n\r\n"),
    ("a blank behind the size", "2 \r\n{}\r\n0\r\n\r\n"),
    ("a tab behind the size", "2\t\r\n{}\r\n0\r\n\r\n"),
    ("a size in quotes", "\"2\"\r\n{}\r\n0\r\n\r\n"),
    ("a size with an underscore", "0_2\r\n{}\r\n0\r\n\r\n"),
    ("a size with a comma", "2,2\r\n{}\r\n0\r\n\r\n"),
    ("a NUL in the size", "2\0\r\n{}\r\n0\r\n\r\n"),
    ("a bare LF behind the size", "2\n{}\r\n0\r\n\r\n"),
    ("a bare CR behind the size", "2\r{}\r\n0\r\n\r\n"),
    ("no CRLF behind the data", "2\r\n{}0\r\n\r\n"),
    ("a bare LF behind the data", "2\r\n{}\n0\r\n\r\n"),
    ("a bare CR behind the data", "2\r\n{}\r0\r\n\r\n"),
    ("more data than the size", "2\r\n{}{}\r\n0\r\n\r\n"),
    ("a bare LF behind the last chunk's line", "2\r\n{}\r\n0\n\r\n"),
    ("a bare LF at the end", "2\r\n{}\r\n0\r\n\n"),
    ("a bare CR at the end", "2\r\n{}\r\n0\r\n\r\r\n"),
    ("an extension without an end", "2;" + "a" * 20000, {400, 413, 431}),
    ("endless extensions, in many chunks", ("1;" + "a" * 1000 + "\r\n{\r\n") * 20 + "0\r\n\r\n"),
    ("a bare LF in an extension", "2;a\nb\r\n{}\r\n0\r\n\r\n"),
    ("a bare CR in an extension", "2;a\rb\r\n{}\r\n0\r\n\r\n"),
    ("a NUL in an extension", "2;a\0b\r\n{}\r\n0\r\n\r\n"),
    ("an unclosed quote in an extension", "2;a=\"b\r\n{}\r\n0\r\n\r\n"),
    ("a blank before a trailer", "2\r\n{}\r\n0\r\n X: y\r\n\r\n"),
    ("a folded trailer", "2\r\n{}\r\n0\r\nX: y\r\n z\r\n\r\n"),
    ("a trailer without a colon", "2\r\n{}\r\n0\r\nX\r\n\r\n"),
    ("a trailer without a name", "2\r\n{}\r\n0\r\n: y\r\n\r\n"),
    ("a trailer with a blank before the colon", "2\r\n{}\r\n0\r\nX : y\r\n\r\n"),
    ("a trailer with a bare LF", "2\r\n{}\r\n0\r\nX: y\n\r\n"),
    ("a trailer with a NUL", "2\r\n{}\r\n0\r\nX: \0\r\n\r\n"),
    ("a length among the trailers", "2\r\n{}\r\n0\r\nContent-Length: 500\r\n\r\n"),
    ("a coding among the trailers", "2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("a length behind an empty trailer", "2\r\n{}\r\n0\r\nX:\r\nContent-Length: 500\r\n\r\n"),
    ("a Host among the trailers", "2\r\n{}\r\n0\r\nHost: y\r\n\r\n"),
    ("endless trailers", "2\r\n{}\r\n0\r\n" + ("X: " + "y" * 100 + "\r\n") * 300 + "\r\n", {400, 431}),
    ("a request where a chunk belongs", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
]]

LINES = [
    ("a bare LF behind the request line", "GET / HTTP/1.1\nHost: x\r\n\r\n"),
    ("a bare CR behind the request line", "GET / HTTP/1.1\rHost: x\r\n\r\n"),
    ("bare LFs everywhere", "GET / HTTP/1.1\nHost: x\n\n"),
    ("bare CRs everywhere", "GET / HTTP/1.1\rHost: x\r\r"),
    ("a bare LF behind a header", "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"),
    ("a bare CR behind a header", "GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n"),
    ("a bare LF for the empty line", "GET / HTTP/1.1\r\nHost: x\r\n\n"),
    ("CR CR LF for the empty line", "GET / HTTP/1.1\r\nHost: x\r\n\r\r\n"),
    ("LF CR for a line's end", "GET / HTTP/1.1\n\rHost: x\n\r\n\r"),
    ("a bare CR inside the target", "GET /a\rb HTTP/1.1\r\n<host>\r\n"),
    ("a bare LF inside the target", "GET /a\nb HTTP/1.1\r\n<host>\r\n"),
    ("a bare CR inside a name", "GET / HTTP/1.1\r\n<host>A\rB: c\r\n\r\n"),
    ("a bare LF at the start of a name", "GET / HTTP/1.1\r\n<host>\nB: c\r\n\r\n"),
    ("a bare CR before the colon", "GET / HTTP/1.1\r\n<host>A\r: c\r\n\r\n"),
    ("a bare CR behind the colon", "GET / HTTP/1.1\r\n<host>A:\rc\r\n\r\n"),
    ("a bare CR inside a value", "GET / HTTP/1.1\r\n<host>A: b\rc\r\n\r\n"),
    ("a bare CR at a value's end", "GET / HTTP/1.1\r\n<host>A: b\r\r\n\r\n"),
    ("a folded header", "GET / HTTP/1.1\r\n<host>A: b\r\n c\r\n\r\n"),
    ("a header folded with a tab", "GET / HTTP/1.1\r\n<host>A: b\r\n\tc\r\n\r\n"),
    ("a fold behind the request line", "GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
    ("a fold with nothing but a blank", "GET / HTTP/1.1\r\n<host>A: b\r\n \r\n\r\n"),
    ("a blank before the colon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
    ("a tab before the colon", "GET / HTTP/1.1\r\nHost\t: x\r\n\r\n"),
    ("an empty header name", "GET / HTTP/1.1\r\n<host>: b\r\n\r\n"),
    ("a header without a colon", "GET / HTTP/1.1\r\n<host>nothing\r\n\r\n"),
    ("a blank inside a name", "GET / HTTP/1.1\r\n<host>A B: c\r\n\r\n"),
    ("a name in brackets", "GET / HTTP/1.1\r\n<host>(A): c\r\n\r\n"),
    ("a name in UTF-8", "GET / HTTP/1.1\r\n<host>\xc3\xa4: c\r\n\r\n"),
    ("a NUL in a name", "GET / HTTP/1.1\r\n<host>A\0: c\r\n\r\n"),
    ("a NUL in a value", "GET / HTTP/1.1\r\n<host>A: b\0c\r\n\r\n"),
    ("a control byte in a value", "GET / HTTP/1.1\r\n<host>A: b\x01c\r\n\r\n"),
    ("a delete byte in a value", "GET / HTTP/1.1\r\n<host>A: b\x7fc\r\n\r\n"),
    ("an escape byte in a value", "GET / HTTP/1.1\r\n<host>A: \x1b[2J\r\n\r\n"),
    ("a NUL before the request", "\0GET / HTTP/1.1\r\n<host>\r\n"),
    ("a NUL in the method", "GE\0T / HTTP/1.1\r\n<host>\r\n"),
    ("a NUL in the version", "GET / HTTP/1.1\0\r\n<host>\r\n"),
    ("three empty lines first", "\r\n\r\n\r\nGET / HTTP/1.1\r\n<host>\r\n"),
    ("an LF first", "\nGET / HTTP/1.1\r\n<host>\r\n"),
    ("a blank first", " GET / HTTP/1.1\r\n<host>\r\n"),
    ("a byte order mark first", "\xef\xbb\xbfGET / HTTP/1.1\r\n<host>\r\n"),
]

REQUEST_LINES = [
    ("two blanks before the target", "GET  / HTTP/1.1\r\n<host>\r\n"),
    ("two blanks behind the target", "GET /  HTTP/1.1\r\n<host>\r\n"),
    ("a tab behind the method", "GET\t/ HTTP/1.1\r\n<host>\r\n"),
    ("a tab behind the target", "GET /\tHTTP/1.1\r\n<host>\r\n"),
    ("a vertical tab behind the target", "GET /\vHTTP/1.1\r\n<host>\r\n"),
    ("a blank behind the version", "GET / HTTP/1.1 \r\n<host>\r\n"),
    ("words behind the version", "GET / HTTP/1.1 HTTP/1.1\r\n<host>\r\n"),
    ("no target", "GET HTTP/1.1\r\n<host>\r\n"),
    ("no version", "GET /\r\n<host>\r\n"),
    ("nothing but a method", "GET\r\n<host>\r\n"),
    ("HTTP/0.9", "GET /\r\n\r\n"),
    ("HTTP/0.9 spelled out", "GET / HTTP/0.9\r\n<host>\r\n"),
    ("HTTP/1.2", "GET / HTTP/1.2\r\n<host>\r\n"),
    ("HTTP/1.10", "GET / HTTP/1.10\r\n<host>\r\n"),
    ("HTTP/1.01", "GET / HTTP/1.01\r\n<host>\r\n"),
    ("HTTP/01.1", "GET / HTTP/01.1\r\n<host>\r\n"),
    ("HTTP/2.0", "GET / HTTP/2.0\r\n<host>\r\n"),
    ("HTTP/3", "GET / HTTP/3\r\n<host>\r\n"),
    ("HTTP/1", "GET / HTTP/1\r\n<host>\r\n"),
    ("HTTP/1,1", "GET / HTTP/1,1\r\n<host>\r\n"),
    ("lower-case http", "GET / http/1.1\r\n<host>\r\n"),
    ("HTTPS/1.1", "GET / HTTPS/1.1\r\n<host>\r\n"),
    ("RTSP", "GET / RTSP/1.0\r\n<host>\r\n"),
    ("ICE", "SOURCE / ICE/1.0\r\n<host>\r\n"),
    ("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("a method in lower case", "get / HTTP/1.1\r\n<host>\r\n"),
    ("a method in mixed case", "Post <path> HTTP/1.1\r\n<host><key>Content-Length: 2\r\n\r\n{}"),
    ("a method that is none", "FOO / HTTP/1.1\r\n<host>\r\n"),
    ("a method with a bracket", "GE{T / HTTP/1.1\r\n<host>\r\n"),
    ("a method of 5,000 letters", "G" * 5000 + " / HTTP/1.1\r\n<host>\r\n"),
    ("CONNECT", "CONNECT x:80 HTTP/1.1\r\n<host>\r\n"),
    ("CONNECT to a path", "CONNECT / HTTP/1.1\r\n<host>\r\n"),
    ("the absolute form", "GET http://x/ HTTP/1.1\r\n<host>\r\n"),
    ("the absolute form, another host", "GET http://elsewhere/ HTTP/1.1\r\n<host>\r\n"),
    ("a scheme of its own", "GET gopher://x/ HTTP/1.1\r\n<host>\r\n"),
    ("the authority form", "GET x:80 HTTP/1.1\r\n<host>\r\n"),
    ("the asterisk with GET", "GET * HTTP/1.1\r\n<host>\r\n"),
    ("an asterisk with more", "OPTIONS ** HTTP/1.1\r\n<host>\r\n"),
    ("a target without a slash", "GET x HTTP/1.1\r\n<host>\r\n"),
    ("a target that is a query", "GET ?a=b HTTP/1.1\r\n<host>\r\n"),
    ("a fragment", "GET /#a HTTP/1.1\r\n<host>\r\n"),
    ("a fragment behind a query", "GET /?a#b HTTP/1.1\r\n<host>\r\n"),
    ("a blank in the target", "GET /a b HTTP/1.1\r\n<host>\r\n"),
    ("a tab in the target", "GET /a\tb HTTP/1.1\r\n<host>\r\n"),
    ("a NUL in the target", "GET /a\0b HTTP/1.1\r\n<host>\r\n"),
    ("raw UTF-8 in the target", "GET /\xc3\xa4 HTTP/1.1\r\n<host>\r\n"),
    ("a raw byte over 0x7f in the target", "GET /\xff HTTP/1.1\r\n<host>\r\n"),
    ("a delete byte in the target", "GET /\x7f HTTP/1.1\r\n<host>\r\n"),
    ("a target of 64 KiB", "GET /" + "a" * 65536 + " HTTP/1.1\r\n<host>\r\n", {414}),
    ("a target just over the limit", "GET /" + "a" * OVER + " HTTP/1.1\r\n<host>\r\n", {414}),
    ("a query of 64 KiB", "GET /?" + "a=b&" * 16384 + " HTTP/1.1\r\n<host>\r\n", {414}),
    ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x55" * 32),
    ("an SSH greeting", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("an SMTP dialogue", "EHLO x\r\nMAIL FROM:<a@b>\r\n\r\n"),
    ("a Redis command", "*1\r\n$4\r\nPING\r\n\r\n"),
    ("a PROXY line", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n<host>\r\n"),
]

FIELDS = [
    ("no Host", "GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
    ("two equal Hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"),
    ("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n"),
    ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("a blank Host", "GET / HTTP/1.1\r\nHost: \t\r\n\r\n"),
    ("a Host with a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("a Host with a slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("a Host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    ("a Host with a query", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
    ("a Host with a fragment", "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
    ("a Host with a scheme", "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n"),
    ("a Host list", "GET / HTTP/1.1\r\nHost: a, b c\r\n\r\n"),
    ("a Host with raw UTF-8", "GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n"),
    ("a Host with a backslash", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n"),
    ("101 headers", "GET / HTTP/1.1\r\n<host>" + "".join(f"A{i}: b\r\n" for i in range(100)) + "\r\n", {431}),
    ("10,000 empty headers", "GET / HTTP/1.1\r\n<host>" + "A:\r\n" * 10000 + "\r\n", {431}),
    ("one header of 64 KiB", "GET / HTTP/1.1\r\n<host>A: " + "b" * 65536 + "\r\n\r\n", {431}),
    ("one header without an end", "GET / HTTP/1.1\r\n<host>A: " + "b" * 65536, {431}),
    ("a header name of 64 KiB", "GET / HTTP/1.1\r\n<host>" + "A" * 65536 + ": b\r\n\r\n", {431}),
    ("a head just over the limit", "GET / HTTP/1.1\r\n<host>A: " + "b" * OVER + "\r\n\r\n", {431}),
    ("Expect: 200-ok", "<post>Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}", {417}),
    ("Expect: 100-continue twice", "<post>Expect: 100-continue, 100-continue\r\nContent-Length: 2\r\n\r\n{}", {417}),
    ("an empty Expect", "<post>Expect:\r\nContent-Length: 2\r\n\r\n{}", {417}),
    ("Expect with a second line", "<post>Expect: 100-continue\r\nExpect: x\r\nContent-Length: 2\r\n\r\n{}", {417}),
    ("Expect and two lengths", "<post>Expect: 100-continue\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    ("Expect and a length over the limit", "<post>Expect: 100-continue\r\nContent-Length: 999999999999\r\n\r\n", {413}),
    ("Upgrade with both framings", "<post>Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n"
                                   "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("Connection: close, then more", "GET / HTTP/1.1\r\n<host>Connection: close\r\n\r\n", {401, 404}),
    ("HTTP/1.0, then more", "GET / HTTP/1.0\r\n<host>\r\n", {401, 404}),
    ("an HTTP/1.0 POST without a length, then more", "POST <path> HTTP/1.0\r\n<host><key>\r\n{}", {400, 401}),
]

ROWS = [(*row, {400})[:3] for row in LENGTHS + CODINGS + CHUNKS + LINES + REQUEST_LINES + FIELDS]


# ---- the daemons ----

class Gateway:
    name, path = "gateway", "/v1/invocations"

    def __init__(self, stack):
        self.stack, self.port, self.pid = stack, stack.gateways[0].port, stack.gateways[0].pid
        self.key = f"Authorization: Bearer {stack.key}\r\n"
        self.live = "/healthz"

    def planted(self, mark):
        body = json.dumps({"agent": "echo", "prompt": mark})
        return (f"POST {self.path} HTTP/1.1\r\nHost: planted\r\n{self.key}Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}")

    def traces(self):
        return self.stack.psql("select convert_from(prompt, 'UTF8') from invocations where "
                               "starts_with(convert_from(prompt, 'LATIN1'), 'planted ')").splitlines()

    def clean(self):
        pass


class Sandboxd:
    name, path = "sandboxd", "/sandboxes"

    def __init__(self, stack):
        self.stack, self.port, self.pid = stack, stack.sandboxd_port, stack.sandboxd.pid
        self.key = f"X-API-Key: {E2B_KEY}\r\n"
        self.live = "/health"

    def planted(self, mark):
        body = json.dumps({"templateID": "base", "timeout": 60, "metadata": {"mark": mark}})
        return (f"POST {self.path} HTTP/1.1\r\nHost: planted\r\n{self.key}Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}")

    def traces(self):
        marks = [(s.get("metadata") or {}).get("mark", "") for s in self.stack.sandboxes()]
        return [m for m in marks if m.startswith("planted ")]

    def clean(self):
        for s in self.stack.sandboxes():
            got = exchange(self.port, f"DELETE /sandboxes/{s['sandboxID']} HTTP/1.1\r\nHost: x\r\n{self.key}"
                                      "Connection: close\r\n\r\n".encode())
            assert b" 204 " in got, got


@pytest.fixture(params=[Gateway, Sandboxd], ids=lambda d: d.name, scope="module")
def daemon(request, stack):
    return request.param(stack)


def exchange(port, data, seconds=20, finish=False):
    """Sends all and reads to the server's end; what it said."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as s:
        try:
            s.sendall(data)
            if finish:
                s.shutdown(socket.SHUT_WR)
            while piece := s.recv(65536):
                got += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return got


def fill(daemon, text):
    post = f"POST {daemon.path} HTTP/1.1\r\n<host><key>"
    for mark, value in (("<post>", post), ("<host>", "Host: x\r\n"), ("<key>", daemon.key), ("<path>", daemon.path)):
        text = text.replace(mark, value)
    return text


STATUS = re.compile(rb"HTTP/1\.[01] (\d\d\d) [^\r\n]*\r\n(?:Date|Content|Server)")


# ---- the tests ----

@pytest.mark.parametrize("name,text,allowed", ROWS, ids=[r[0] for r in ROWS])
def test_refused_and_nothing_behind_it_is_served(daemon, name, text, allowed):
    data = (fill(daemon, text) + daemon.planted(f"planted {name}")).encode("latin-1")
    got = exchange(daemon.port, data)
    answers = [int(s) for s in STATUS.findall(got)]
    assert len(answers) <= 1, got
    assert got == b"" or (answers and answers[0] in allowed), got[:600]
    if got:
        head, _, body = got.partition(b"\r\n\r\n")
        assert b"\r\nConnection: close" in head, head
        assert re.search(rb"\r\nContent-Length: (\d+)", head)[1] == str(len(body)).encode(), got
        if daemon.name == "gateway":
            assert b"\r\nContent-Type: application/problem+json" in head
            problem = json.loads(body)
            assert problem["status"] == answers[0] and problem["code"] and problem["title"], problem


def test_the_table_is_large_enough():
    assert len(ROWS) >= 120 and len({r[0] for r in ROWS}) == len(ROWS)


def test_a_planted_request_would_be_noticed(daemon):
    """The proof that the tests above can fail: behind a request that is in order, the planted one is served."""
    mark = f"planted control {time.monotonic_ns()}"
    first = f"GET {daemon.live} HTTP/1.1\r\nHost: x\r\n\r\n"
    last = f"GET {daemon.live} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    got = exchange(daemon.port, (first + daemon.planted(mark) + last).encode())
    assert len(STATUS.findall(got)) == 3, got
    until("the control left its trace", lambda: mark in daemon.traces())
    daemon.clean()


def test_nothing_planted_was_served(daemon):
    assert [t for t in daemon.traces() if not t.startswith("planted control ")] == []


ODD = [
    ("one empty line first", "\r\nGET <live> HTTP/1.1\r\n<host>\r\n"),
    ("no blank behind the colon", "GET <live> HTTP/1.1\r\nHost:x\r\n\r\n"),
    ("blanks and tabs around a value", "GET <live> HTTP/1.1\r\n<host>A: \t b \t\r\n\r\n"),
    ("names in any case", "GET <live> HTTP/1.1\r\nhOST: x\r\ncONTENT-lENGTH: 0\r\n\r\n"),
    ("a length with zeros first", "GET <live> HTTP/1.1\r\n<host>Content-Length: 002\r\n\r\n{}"),
    ("a chunk size with zeros first", "GET <live> HTTP/1.1\r\n<host>Transfer-Encoding: CHUNKED\r\n\r\n0002\r\n{}\r\n000\r\n\r\n"),
    ("a chunk extension", "GET <live> HTTP/1.1\r\n<host>Transfer-Encoding: chunked\r\n\r\n2;a=\"b;c\"\r\n{}\r\n0\r\n\r\n"),
    ("a trailer", "GET <live> HTTP/1.1\r\n<host>Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n"),
    ("an upgrade that is not taken", "GET <live> HTTP/1.1\r\n<host>Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
    ("an upgrade with a chunked body", "GET <live> HTTP/1.1\r\n<host>Connection: Upgrade\r\nUpgrade: websocket\r\n"
                                       "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    ("an upgrade with a length", "GET <live> HTTP/1.1\r\n<host>Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n{}"),
    ("Expect without a body", "GET <live> HTTP/1.1\r\n<host>Expect: 100-continue\r\n\r\n"),
    ("an empty header before the length", "GET <live> HTTP/1.1\r\n<host>A:\r\nContent-Length: 2\r\n\r\n{}"),
    ("an empty trailer before another", "GET <live> HTTP/1.1\r\n<host>Transfer-Encoding: chunked\r\n\r\n0\r\nA:\r\nB: c\r\n\r\n"),
    ("100 headers", "GET <live> HTTP/1.1\r\n<host>" + "".join(f"A{i}: b\r\n" for i in range(99)) + "\r\n"),
    ("values over 0x7f", "GET <live> HTTP/1.1\r\n<host>A: \xe4\xff\r\n\r\n"),
    ("an IPv6 Host", "GET <live> HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
]


@pytest.mark.parametrize("name,text", ODD, ids=[r[0] for r in ODD])
def test_odd_but_in_order(daemon, name, text):
    """Served once, and what follows is read from the right byte on."""
    last = f"GET {daemon.live}?last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    data = fill(daemon, text).replace("<live>", daemon.live) + last
    got = exchange(daemon.port, data.encode("latin-1"))
    answers = [s for s in STATUS.findall(got)]
    assert len(answers) == 2 and answers[0] == answers[1] and answers[0] in (b"200", b"204"), got


@pytest.mark.parametrize("name,text,status", [
    ("bad escapes in an id", "GET /v1/invocations/%zz HTTP/1.1", 404),
    ("an escape without an end", "GET /v1/invocations/% HTTP/1.1", 404),
    ("an escaped slash", "GET /v1%2finvocations HTTP/1.1", 404),
    ("an escaped letter", "GET /v1/%69nvocations HTTP/1.1", 404),
    ("an escaped NUL", "GET /v1/invocations/%00 HTTP/1.1", 404),
    ("dots", "GET /v1/../v1/agents HTTP/1.1", 404),
    ("two slashes", "GET //v1/agents HTTP/1.1", 404),
    ("a slash at the end", "GET /v1/agents/ HTTP/1.1", 404),
    ("a backslash", "GET \\v1\\agents HTTP/1.1", 400),
    ("TRACE", "TRACE /v1/agents HTTP/1.1", 405),
    ("OPTIONS", "OPTIONS /v1/agents HTTP/1.1", 405),
    ("a WebDAV method", "PROPFIND /v1/agents HTTP/1.1", 405),
    ("OPTIONS for the whole server", "OPTIONS * HTTP/1.1", 404),
])
def test_paths_and_methods_of_the_gateway(stack, name, text, status):
    gateway = Gateway(stack)
    got = exchange(gateway.port, f"{text}\r\nHost: x\r\n{gateway.key}Connection: close\r\n\r\n".encode())
    assert [int(s) for s in STATUS.findall(got)] == [status], got


def test_pipelining_behind_an_error(daemon):
    bad = "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"
    good = f"GET {daemon.live} HTTP/1.1\r\nHost: x\r\n\r\n"
    got = exchange(daemon.port, (good * 3 + bad + good * 500).encode())
    answers = [int(s) for s in STATUS.findall(got)]
    assert len(answers) == 4 and answers[3] == 400, answers


def test_ten_thousand_pipelined_requests(daemon):
    """All answered, in order, while others are served."""
    many = 10000
    good = f"GET {daemon.live} HTTP/1.1\r\nHost: x\r\n\r\n"
    last = f"GET {daemon.live} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    data, got, other = (good * (many - 1) + last).encode(), bytearray(), 0
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as s:
        s.setblocking(False)
        end = time.monotonic() + 60
        while True:
            assert time.monotonic() < end, f"{len(STATUS.findall(bytes(got)))} answers within 60 s"
            try:
                data = data[s.send(data[:65536]):] if data else data
            except BlockingIOError:
                pass
            try:
                piece = s.recv(1 << 20)
                if not piece:
                    break
                got += piece
            except BlockingIOError:
                other += b" 20" in exchange(daemon.port, last.encode())
    assert len(STATUS.findall(bytes(got))) == many
    assert other > 0


@pytest.mark.parametrize("step", [1, 2, 7])
def test_a_request_in_fragments(daemon, step):
    """The same bytes, however they are divided, are the same requests."""
    text = ("\r\nGET <live> HTTP/1.1\r\n<host>Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nT: v\r\n\r\n"
            "GET <live> HTTP/1.1\r\n<host>Connection: close\r\n\r\n")
    data = fill(daemon, text).replace("<live>", daemon.live).encode()
    got = b""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step):
            s.sendall(data[at:at + step])
            time.sleep(0.0005)  # a segment each; nothing depends on it
        while piece := s.recv(65536):
            got += piece
    assert len(STATUS.findall(got)) == 2, got


def test_a_hang_up_in_the_middle_harms_nothing(daemon):
    whole = fill(daemon, CHUNKED + "2\r\n{}\r\n0\r\n\r\n").encode()
    for cut in range(1, len(whole)):
        exchange(daemon.port, whole[:cut], finish=True)
    ok = exchange(daemon.port, f"GET {daemon.live} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert STATUS.findall(ok)[0] in (b"200", b"204")


def test_the_daemon_lived_through_it(daemon):
    assert (daemon.stack.gateways[0] if daemon.name == "gateway" else daemon.stack.sandboxd).pid == daemon.pid
    assert open(f"/proc/{daemon.pid}/comm").read().startswith("sandpiper"), BIN
