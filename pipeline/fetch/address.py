"""Which addresses a URL may lead to: only those that the whole internet can reach.

The tables follow IANA's IPv4 and IPv6 special-purpose address registries (RFC 6890 and its updates): every range
of them is refused, also the few that are globally reachable, since no shop's images live there.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address

_RANGES_4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "cloud platform",  # Azure's wire server: public by its number, inner by its use
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "as112",
    "192.52.193.0/24": "amt",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "as112",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}

_RANGES_6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::ffff:0:0/96": "ipv4-mapped",
    "::/96": "ipv4-compatible",
    "64:ff9b::/96": "nat64",
    "64:ff9b:1::/48": "nat64",
    "100::/64": "discard",
    "100:0:0:1::/64": "dummy",
    "2001::/23": "protocol assignments",  # Teredo, ORCHID, AMT, AS112 and drone ids lie in it
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "2620:4f:8000::/48": "as112",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}


def _checks(ranges: dict[str, str]) -> list[tuple[int, int, str]]:
    """(network, mask, name) as numbers: an integer comparison a range, no objects in the hot path."""
    networks = [(ip_network(text), name) for text, name in ranges.items()]
    return [(int(network.network_address), int(network.netmask), name) for network, name in networks]


_CHECKS_4 = _checks(_RANGES_4)
_CHECKS_6 = _checks(_RANGES_6)
_GLOBAL_UNICAST_6 = (0x2000 << 112, 0xE000 << 112)


def blocked_range(address: Address) -> str | None:
    """The name of the special range that holds `address`, or None when it may be connected to."""
    number = int(address)
    if isinstance(address, IPv4Address):
        return next((name for net, mask, name in _CHECKS_4 if number & mask == net), None)
    if address.scope_id is not None:
        return "link-local"
    named = next((name for net, mask, name in _CHECKS_6 if number & mask == net), None)
    if named is None and number & _GLOBAL_UNICAST_6[1] != _GLOBAL_UNICAST_6[0]:
        return "reserved"
    return named
