/* guard: where requests to URLs that callers name may go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "http/guard.h"

static struct http_guard public_only;

static bool may(const struct http_guard *g, const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return guard_address(g, (struct sockaddr *)&v4);
    if (inet_pton(AF_INET6, text, &v6.sin6_addr) != 1)
        fail_msg("%s is no address", text);
    return guard_address(g, (struct sockaddr *)&v6);
}

/* The first and the last of each closed range, and its neighbours outside. */
static void closed_ranges(void **state)
{
    (void)state;
    static const char *const closed[] = {
        "0.0.0.0",
        "0.0.0.1",
        "0.255.255.255",
        "10.0.0.0",
        "10.1.2.3",
        "10.255.255.255",
        "100.64.0.0",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.0",
        "127.0.0.1",
        "127.0.0.53",
        "127.255.255.255",
        "169.254.0.0",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.255.255",
        "172.16.0.0",
        "172.17.0.1",
        "172.31.255.255",
        "192.0.0.0",
        "192.0.0.192",
        "192.0.0.255",
        "192.0.2.0",
        "192.0.2.255",
        "192.88.99.0",
        "192.88.99.1",
        "192.88.99.255",
        "192.168.0.0",
        "192.168.1.1",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.0",
        "198.51.100.255",
        "203.0.113.0",
        "203.0.113.255",
        "224.0.0.0",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.0",
        "250.1.2.3",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0.0.0.0",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::808:808",
        "64:ff9b:1::",
        "64:ff9b:1::7f00:1",
        "100::",
        "100::1",
        "2001::",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::",
        "2001:2:0:ffff::1",
        "2001:10::",
        "2001:1f:ffff::",
        "2001:20::1",
        "2001:2f::1",
        "2001:db8::",
        "2001:db8:ffff::1",
        "2002::",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2002:808:808::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "8000::1",
        "fc00::",
        "fc00::1",
        "fd00::1",
        "fd00:ec2::254",
        "fd12:3456::1",
        "fdff::1",
        "fe80::",
        "fe80::1",
        "fe80::a9fe:a9fe",
        "febf::1",
        "fec0::1",
        "feff::1",
        "ff00::",
        "ff02::1",
        "ff0e::1",
        "ffff::1",
    };
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++)
        if (may(&public_only, closed[i]))
            fail_msg("%s was let through", closed[i]);
}

static void public_addresses(void **state)
{
    (void)state;
    static const char *const open[] = {
        "1.0.0.0",
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2000::1",
        "2001:1::1",
        "2001:3::1",
        "2001:4860:4860::8888",
        "2001:db7::1",
        "2001:db9::1",
        "2003::1",
        "2600::1",
        "2a00:1450::1",
        "2606:4700::1111",
        "3ffe:ffff::1",
    };
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        if (!may(&public_only, open[i]))
            fail_msg("%s was refused", open[i]);
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/tmp/x"};
    assert_false(guard_address(&public_only, (struct sockaddr *)&local));
}

static void refused_urls(void **state)
{
    (void)state;
    static const char *const bad[] = {
        /* not a URL, or not one of ours */
        "http:/example.com/",
        "http:///example.com/",
        "http:example.com/",
        "http:////example.com/",
        "",
        " ",
        "x",
        "http:",
        "http:/",
        "http://",
        "https://",
        "//example.com/",
        "/hook",
        "example com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "dict://example.com/",
        "ws://example.com/",
        "unix:///tmp/s",
        "javascript:alert(1)",
        "data:text/plain,x",
        "ldap://example.com/",
        "smtp://example.com/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nHost: x",
        "http://example.com/\n",
        "http://example.com\t/",
        "http://example.com/\x7f",
        "http://ex\xc3\xa4mple.com/",
        "http://\xe2\x91\xa0.com/",
        "http://example.com\\@127.0.0.1/",
        "http:\\\\127.0.0.1/",
        "http://exa%6dple.com:x/",
        /* users */
        "http://user@example.com/",
        "http://user:pass@example.com/",
        "http://:pass@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1@example.com/",
        "http://a:b@127.0.0.1:80/",
        /* ports */
        "http://example.com:0/",
        "http://example.com:22/",
        "http://example.com:25/",
        "http://example.com:5432/",
        "http://example.com:6379/",
        "http://example.com:65536/",
        "http://example.com:99999999999/",
        "http://example.com:-80/",
        "http://example.com:80a/",
        "https://example.com:81/",
        /* addresses, in all their spellings */
        "http://127.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0x7f.0.0.1/",
        "http://0177.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://00000177.0.0.01/",
        "http://127.0.0.1./",
        "http://127.1./",
        "http://0/",
        "http://0.0.0.0/",
        "http://0x0/",
        "http://00/",
        "http://10.0.0.1/",
        "http://10.1/",
        "http://167772161/",
        "http://192.168.1.1/",
        "http://192.168.257/",
        "http://172.16.0.1/",
        "http://172.31.255.254/",
        "http://169.254.169.254/",
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://100.64.0.1/",
        "http://198.18.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://256.1.1.1/",
        "http://1.2.3.4.5/",
        "http://1.2.3.256/",
        "http://4294967296/",
        "http://99999999999/",
        "http://0x100000000/",
        "http://127.0.0.0x1/",
        "http://127.0.0.08/",
        "http://1.2.3.0x/",
        "http://example.1/",
        "http://a.0x7f/",
        "http://[::]/",
        "http://[::1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::127.0.0.1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:ffff:7f00:1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b:1::1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001::1]/",
        "http://[2001:db8::1]/",
        "http://[fc00::1]/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1%25lo]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
        "http://[::1/",
        "http://::1/",
        "http://[]/",
        "http://[1]/",
        "http://[::1]x/",
        "http://[v1.x]/",
        "http://[::g]/",
        /* names that lead inside */
        "http://localhost/",
        "http://LOCALHOST/",
        "http://localhost./",
        "http://LocalHost:80/",
        "http://a.localhost/",
        "http://foo.bar.localhost./",
        "http://localhost.localdomain/",
        "http://printer.local/",
        "http://router.lan/",
        "http://metadata.google.internal/",
        "http://metadata.google.internal./",
        "http://db.internal/",
        "http://wiki.intranet/",
        "http://ip6-localhost/",
        "http://ip6-loopback/",
        "http://nas.home.arpa/",
        "http://x.onion/",
        "http://x.test/",
        "http://x.invalid/",
        "http://localhost%00.example.com/",
        "http://%6c%6f%63alhost/",
        "http://127.0.0.1%2f.example.com/",
        "http://example.com%20/",
        "http://%31%32%37.0.0.1/",
        "http://exam$ple.com/",
        "http://a,b.com/",
        "http://a;b.com/",
        "http://*.example.com/",
        "http://.../",
        "http://../",
    };
    struct err err;
    int let = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (guard_url(&public_only, str_of(bad[i]), &err) == 0) {
            print_message("let through: %s\n", bad[i]);
            let++;
        } else {
            assert_int_equal(err.code, ERR_BAD_FIELD);
            assert_true(strlen(err.msg) > 10);
        }
    assert_int_equal(let, 0);
    print_message("%zu URLs refused\n", sizeof bad / sizeof *bad);
    assert_int_equal(guard_url(&public_only, str_make("http://example.com/\0x", 21), &err), -1);
    char big[GUARD_URL_MAX_BYTES + 2];
    memset(big, 'a', sizeof big);
    memcpy(big, "http://example.com/", 19);
    assert_int_equal(guard_url(&public_only, str_make(big, sizeof big), &err), -1);
    assert_int_equal(guard_url(&public_only, str_make(big, GUARD_URL_MAX_BYTES), &err), 0);
}

static void good_urls(void **state)
{
    (void)state;
    static const char *const good[] = {
        "http://example.com",
        "https://example.com/",
        "https://example.com/hook?a=b&c=%20d",
        "http://example.com:8080/x",
        "https://example.com:8443/",
        "HTTPS://EXAMPLE.COM/",
        "https://example.com./",
        "https://a-b_c.example.co.uk/",
        "https://xn--bcher-kva.example/",
        "http://1.1.1.1/",
        "http://16843009/",
        "https://[2606:4700::1111]/",
        "https://localhost.example.com/",
        "https://mylocal/",
        "https://example.com/#frag",
        "https://3com.com/",
        "https://internal.example.com/",
        "https://0x7f.example.com/",
    };
    struct err err;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (guard_url(&public_only, str_of(good[i]), &err) != 0)
            fail_msg("%s: %s", good[i], err.msg);
}

static void the_operator_opens_networks(void **state)
{
    (void)state;
    struct http_guard g = {0};
    struct err err;
    assert_int_equal(guard_read_ports(STR("80, 443,9000-9010"), &g, &err), 0);
    assert_int_equal(guard_read_allowed(STR("10.1.0.0/16, 127.0.0.1,fd00::/8"), &g, &err), 0);
    assert_true(may(&g, "10.1.255.1"));
    assert_false(may(&g, "10.2.0.1"));
    assert_true(may(&g, "127.0.0.1"));
    assert_false(may(&g, "127.0.0.2"));
    assert_true(may(&g, "fd12::1"));
    assert_false(may(&g, "fe80::1"));
    assert_false(may(&g, "::ffff:10.1.0.1"));
    assert_false(may(&g, "169.254.169.254"));
    assert_int_equal(guard_url(&g, STR("http://10.1.0.1:9010/"), &err), 0);
    assert_int_equal(guard_url(&g, STR("http://10.1.0.1:9011/"), &err), -1);
    assert_int_equal(guard_url(&g, STR("http://localhost/"), &err), 0); /* its address decides */
    static const char *const bad[] = {"x",        "10.0.0.0/33", "10.0.0/8", "::/129",
                                      "1.2.3.4,", "/8",          "1.2.3.4/", "1.2.3.4/-1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(guard_allowed_check(bad[i], &err), -1);
    static const char *const ports[] = {"", "0", "x", "80-", "80-70", "65536", "80,,81", "-80"};
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
        if (strcmp(ports[i], "80-") != 0)
            assert_int_equal(guard_ports_check(ports[i], &err), -1);
}

static void origins(void **state)
{
    (void)state;
    char a[256], b[256];
    assert_true(guard_origin(STR("HTTPS://Example.COM/a"), a, sizeof a));
    assert_true(guard_origin(STR("https://example.com:443/b?c"), b, sizeof b));
    assert_string_equal(a, "https://example.com:443");
    assert_string_equal(a, b);
    assert_false(guard_origin(STR("nonsense://"), a, sizeof a));
    assert_false(guard_origin(STR("https://example.com/"), a, 8));
}

int main(void)
{
    struct err err;
    if (guard_read_ports(STR(GUARD_PORTS_DEFAULT), &public_only, &err) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_ranges), cmocka_unit_test(public_addresses),
        cmocka_unit_test(refused_urls),  cmocka_unit_test(good_urls),
        cmocka_unit_test(origins),       cmocka_unit_test(the_operator_opens_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
