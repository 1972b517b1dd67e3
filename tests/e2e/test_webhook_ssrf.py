"""Nobody's webhook reaches what is not of the public internet: at creation, and whatever a name resolves to later.

The dispatcher runs with every address closed but one that no listener here has; honeypots on loopback count connections."""

import pytest

from sim_stack import AGENT, SimStack
from stack import until
from webhook_receiver import RawReceiver, Receiver

NETS = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0177.1", "017700000001", "127.0.0.1.",
        "127.0.0.2", "127.255.255.254", "0", "0.0.0.0", "0x0", "00000177.0.0.1", "127.0.0.0x1",
        "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:7f00:1]",
        "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::1]", "[2001:0:7f00:1::1]", "[fe80::1]", "[fe80::1%25lo]",
        "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]", "[100::1]",
        "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "169.254.169.254",
        "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "localhost", "LOCALHOST", "localhost.", "LocalHost.", "a.localhost", "localhost.localdomain", "ip6-localhost",
        "metadata.google.internal", "metadata.google.internal.", "instance-data.ec2.internal", "foo.local", "foo.lan"]
FORMS = ["http://{h}:{p}/", "https://{h}:{p}/hook", "http://{h}:{p}?x=1", "http://user@{h}:{p}/", "http://{h}:{p}#@example.com/"]
ODD = ["http://example.com@127.0.0.1:{p}/", "http://127.0.0.1:{p}\\@example.com/", "http://example.com\\@127.0.0.1:{p}/",
       "http://127.0.0.1:{p}%2f@example.com/", "http://exa mple@127.0.0.1:{p}/", "http://127.0.0.1:{p}\t/", "http://1⑦.0.0.1:{p}/",
       "http://①②⑦.⓪.⓪.①:{p}/", "http://ⓛocalhost:{p}/", "gopher://127.0.0.1:{p}/_x", "dict://127.0.0.1:{p}/", "file:///etc/passwd",
       "ftp://127.0.0.1:{p}/", "ldap://127.0.0.1:{p}/", "unix:///tmp/x", "tftp://127.0.0.1:{p}/", "http:127.0.0.1:{p}/",
       "http:///127.0.0.1:{p}/", "//127.0.0.1:{p}/", "http://127.0.0.1:{p}\r\nX: y/", "http://%31%32%37.0.0.1:{p}/",
       "http://127.0.0.1%00.example.com:{p}/", "http://[::1%25lo]:{p}/", "http://[::1]x:{p}/", "http://127。0。0。1:{p}/"]


@pytest.fixture(scope="module")
def stack():
    # Nothing private is open; all ports are, so that it is addresses that are looked at.
    s = SimStack(SANDPIPER_WEBHOOK_PORTS="1-65535", SANDPIPER_WEBHOOK_SCHEDULE="50ms")
    try:
        yield s.start()
    finally:
        s.stop()


@pytest.fixture(scope="module")
def honeypots():
    import socket

    v4 = RawReceiver(host="0.0.0.0")
    v6 = RawReceiver(host="::1", port=v4.port, family=socket.AF_INET6)
    yield [v4, v6]
    v4.close()
    v6.close()


def test_refused_at_creation(stack, honeypots):
    port = honeypots[0].port
    urls = [f.format(h=h, p=port) for h in NETS for f in FORMS] + [o.format(p=port) for o in ODD]
    assert len(urls) >= 200
    for url in urls:
        a = stack.client.call("POST", "/v1/webhooks", {"url": url})
        assert (a.status, a.json["code"]) == (400, "invalid_field"), (url, a.body)
        b = stack.client.submit(AGENT, "x", webhook={"url": url})
        assert b.status == 400, (url, b.body)
    assert stack.count("select count(*) from webhook_endpoints") == 0
    assert sum(h.connections for h in honeypots) == 0
    print(f"{len(urls)} URLs refused twice, 0 connections")


def test_refused_when_connecting(stack, honeypots):
    """Past the gateway (an older one, a row of somebody's making, a name that turned): the dispatcher looks again."""
    port = honeypots[0].port
    urls = [f"http://{h}:{port}/" for h in NETS] + [o.format(p=port) for o in ODD]
    urls += [f"http://{h}:{port}/" for h in ("ip6-loopback", "localhost6", "turned.example")]
    ids = []
    for url in urls:
        if len(ids) and len(ids) % 40 == 0:
            drain(stack, ids)
        a = stack.client.call("POST", "/v1/webhooks", {"url": "https://hooks.example/"})
        if a.status == 409:
            drain(stack, ids)
            a = stack.client.call("POST", "/v1/webhooks", {"url": "https://hooks.example/"})
        ids.append(a.json["id"])
        quoted = url.replace("'", "''")
        stack.psql(f"update webhook_endpoints set url = '{quoted}' where id = '{a.json['id'][4:]}'")
    drain(stack, ids)
    assert sum(h.connections for h in honeypots) == 0
    print(f"{len(urls)} URLs forced upon the dispatcher, 0 connections")


def drain(stack, ids):
    """Each endpoint gets an event, fails, and goes."""
    stack.client.run(AGENT, "x")
    until("the outbox is empty", lambda: stack.count("select count(*) from outbox") == 0, 60)
    while ids:
        id = ids.pop()
        log = stack.client.call("GET", f"/v1/webhooks/{id}/deliveries").json["data"]
        assert log and all(a["status"] is None and a["error"] for a in log), (id, log)
        stack.client.call("DELETE", f"/v1/webhooks/{id}")


def test_a_name_that_leads_inside_is_refused_at_the_socket(stack, honeypots):
    """This machine's own name resolves to an address of it: no look at the URL can know."""
    import socket

    name = socket.gethostname()
    if not name or "." in name[-1:] or not name[0].isalpha():
        pytest.skip("this machine has no name to ask for")
    try:
        inside = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine's name does not resolve")
    a = stack.client.call("POST", "/v1/webhooks", {"url": f"http://{name}:{honeypots[0].port}/"})
    assert a.status == 201, (name, inside, a.body)
    stack.client.run(AGENT, "x")
    log = until("it was tried", lambda: stack.client.call("GET", f"/v1/webhooks/{a.json['id']}/deliveries").json["data"])
    assert "closed to webhooks" in log[0]["error"], log
    assert sum(h.connections for h in honeypots) == 0


def test_what_the_operator_opened_is_reached():
    s = SimStack(SANDPIPER_WEBHOOK_PORTS="1-65535", SANDPIPER_WEBHOOK_ALLOW_ADDRESSES="127.0.0.1")
    try:
        s.start()
        r = Receiver()
        assert s.client.call("POST", "/v1/webhooks", {"url": r.url()}).status == 201
        assert s.client.call("POST", "/v1/webhooks", {"url": f"http://127.0.0.2:{r.port}/"}).status == 400
        assert s.client.call("POST", "/v1/webhooks", {"url": f"http://localhost:{r.port}/"}).status == 201
        s.client.run(AGENT, "x")
        r.wait(2)
        r.close()
    finally:
        s.stop()
