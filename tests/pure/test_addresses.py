"""The URL parser and the address table against the traps that other guards fell into."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.guards.addresses import ALLOWED_V6, EgressRefused, SafeUrl, parse_target, refusal, sandboxed, unmapped

REFUSED_ADDRESSES = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:100.64.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "3ffe::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:10.0.0.1",
    "4000::1",
]

PUBLIC_ADDRESSES = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450::8a",
    "::ffff:8.8.8.8",
]

REFUSED_URLS = [
    "",
    "example.com",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "http://",
    "http:///path",
    "http://?x",
    "//example.com/",
    "http:/example.com",
    "http:example.com",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1#@example.com/".replace("#", "\\"),
    "http://example.com\\@127.0.0.1/",
    "http://exa mple.com/",
    "http://example.com/a b",
    "http://example.com/\r\nHost: evil",
    "http://example.com/\x00",
    "http://example.com\t/",
    "\thttp://example.com/",
    "http://example.com/\u2028",
    "http://2130706433/",
    "http://017700000001/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://127.0.0.1./",
    "http://1.2.3.4.5/",
    "http://256.1.1.1/",
    "http://example.0x1/",
    "http://example.123/",
    "http://0x/",
    "http://①②⑦.⓪.⓪.①/",
    "http://１２７.０.０.１/",
    "http://𝟙𝟚𝟟.𝟘.𝟘.𝟙/",
    "http://127。0。0。1/",
    "http://ｅxample.com/",
    "http://ⓔxample.com/",
    "http://exam%70le.com/",
    "http://%31%32%37.0.0.1/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[::1/",
    "http://::1/",
    "http://[::1]x/",
    "http://[127.0.0.1]/",
    "http://[v1.x]/",
    "http://example.com:/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:99999999/",
    "http://example.com:8 0/",
    "http://example.com:+80/",
    "http://example.com:8०/",
    "http://example.com:80:80/",
    "http://-example.com/",
    "http://example..com/",
    "http://.example.com/",
    "http://example.com./",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 200 + "com/",
    "http://example.com/" + "a" * 3000,
    "http://example.com/\ud800",
]


@pytest.mark.parametrize("text", REFUSED_ADDRESSES)
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert refusal(ip_address(text)) is not None


@pytest.mark.parametrize("text", PUBLIC_ADDRESSES)
def test_a_public_address_passes(text: str) -> None:
    assert refusal(ip_address(text)) is None


@given(st.ip_addresses(v=6))
def test_no_address_outside_the_public_ipv6_range_passes(address: object) -> None:
    given_address = ip_address(str(address))
    judged = unmapped(given_address)
    if judged.version == 6 and judged not in ALLOWED_V6:
        assert refusal(given_address) is not None


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_the_ipv4_inside_it(address: object) -> None:
    assert refusal(ip_address(f"::ffff:{address}")) == refusal(ip_address(str(address)))


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fe80::1",
        "224.0.0.1",
        "8.8.8.8",
    ],
)
def test_no_sandbox_opens_metadata_or_link_local_addresses(text: str) -> None:
    assert not sandboxed(ip_address(text))


@pytest.mark.parametrize("text", REFUSED_URLS)
def test_a_url_that_two_parsers_could_read_differently_is_refused(text: str) -> None:
    with pytest.raises(EgressRefused) as refused:
        SafeUrl.parse(text)
    assert refused.value.field in {"url", "host", "port"}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM:443/A?b=c#fragment", "https://example.com/A?b=c"),
        ("https://example.com:8443/x", "https://example.com:8443/x"),
        ("http://93.184.216.34/", "http://93.184.216.34/"),
        ("http://[2606:4700:0:0::1111]:80/", "http://[2606:4700::1111]/"),
        ("https://bücher.example/ä?ö=ü", "https://xn--bcher-kva.example/%C3%A4?%C3%B6=%C3%BC"),
        ("http://my_host.example/%2e%2e/", "http://my_host.example/%2e%2e/"),
        ("http://example.com/a@b:c?u=http://x", "http://example.com/a@b:c?u=http://x"),
    ],
)
def test_a_url_is_written_back_in_one_spelling(text: str, written: str) -> None:
    assert str(SafeUrl.parse(text)) == written


def test_what_is_shown_of_a_url_has_no_path_and_no_query() -> None:
    assert SafeUrl.parse("https://example.com/hook/s3cret?token=s3cret").shown == "https://example.com"


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_fail_in_another_way(text: str) -> None:
    for candidate in (text, "http://" + text, "http://example.com:" + text):
        try:
            parsed = SafeUrl.parse(candidate)
        except EgressRefused:
            continue
        assert SafeUrl.parse(str(parsed)) == parsed
        assert str(parsed).isascii()


@pytest.mark.parametrize("host", ["", "a b", "localhost.", "127.1", "user@host"])
def test_a_bare_host_is_held_to_the_same_rules(host: str) -> None:
    with pytest.raises(EgressRefused):
        parse_target(host, 25)
