"""No address of a special-purpose registry is ever connected to, and every other one may be."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fetch.address import blocked_range

# IANA, IPv4 Special-Purpose Address Registry, and the multicast space
REGISTRY_4 = [
    "0.0.0.0/8",
    "0.0.0.0/32",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.0.0/29",
    "192.0.0.8/32",
    "192.0.0.9/32",
    "192.0.0.10/32",
    "192.0.0.170/32",
    "192.0.0.171/32",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.88.99.2/32",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "224.0.0.0/4",
]
# IANA, IPv6 Special-Purpose Address Registry, multicast, and what was given up or is not given out
REGISTRY_6 = [
    "::1/128",
    "::/128",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:2::/48",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:30::/28",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
    "fec0::/10",
    "::/96",
    "4000::/3",
    "6000::/3",
    "8000::/3",
    "e000::/4",
]


@pytest.mark.parametrize("text", REGISTRY_4 + REGISTRY_6)
def test_both_ends_of_every_special_range_are_refused(text: str) -> None:
    network = ip_network(text)
    assert blocked_range(network[0])
    assert blocked_range(network[-1])


@given(st.sampled_from(REGISTRY_4 + REGISTRY_6), st.data())
def test_every_address_in_a_special_range_is_refused(text: str, data: st.DataObject) -> None:
    network = ip_network(text)
    offset = data.draw(st.integers(0, network.num_addresses - 1))
    assert blocked_range(network[offset])


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_ipv4_address_outside_the_registry_is_allowed(address: IPv4Address) -> None:
    special = any(address in ip_network(text) for text in REGISTRY_4) or str(address) == "168.63.129.16"
    assert (blocked_range(address) is not None) == special


@given(st.integers(0, 2**128 - 1).map(IPv6Address) | st.integers(0x20 << 120, (0x40 << 120) - 1).map(IPv6Address))
def test_an_ipv6_address_is_allowed_only_in_global_unicast_outside_the_registry(address: IPv6Address) -> None:
    special = address not in ip_network("2000::/3") or any(address in ip_network(text) for text in REGISTRY_6)
    assert (blocked_range(address) is not None) == special


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_what_the_standard_library_knows_as_not_global_is_refused(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert blocked_range(address)


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_inside_an_ipv6_one_is_refused_whatever_it_is(number: int) -> None:
    high, low = number >> 16, number & 0xFFFF
    for text in (
        f"::ffff:{high:x}:{low:x}",
        f"::{high:x}:{low:x}",
        f"64:ff9b::{high:x}:{low:x}",
        f"64:ff9b:1::{high:x}:{low:x}",
        f"2002:{high:x}:{low:x}::1",
        f"2001:0:{high:x}:{low:x}::1",
    ):
        assert blocked_range(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8",
        "93.184.216.34",
        "1.1.1.1",
        "100.128.0.1",
        "172.32.0.1",
        "2606:4700::1111",
        "2a00:1450:4001:81b::200e",
        "2400:cb00::1",
    ],
)
def test_the_open_internet_is_allowed(text: str) -> None:
    assert blocked_range(ip_address(text)) is None


def test_a_zone_makes_an_address_a_local_one() -> None:
    assert blocked_range(ip_address("2606:4700::1111%eth0")) == "link-local"
