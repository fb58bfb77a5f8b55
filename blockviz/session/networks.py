"""Who counts as one caller: an address, or the network that an IPv6 address is drawn from."""

from __future__ import annotations

import ipaddress

# A household has 2^64 addresses of IPv6, and may use another for every request.
PREFIX = 64
MOST_CHARS = 64


def network_of(address: str) -> str:
    """The IPv4 address itself, or the /64 of an IPv6 one; what is neither stays as it is."""
    try:
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address[:MOST_CHARS]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, PREFIX), strict=False))
