"""Who a request's client is: by token, by key, by address."""

from __future__ import annotations

from itertools import combinations

import pytest

from gateway.web.clients import client_of

PEER = ("192.0.2.7", 51234)


def test_the_token_counts_before_the_key_and_the_key_before_the_address() -> None:
    """What is proven before what is said, and what is said before where it came from."""
    assert client_of(token="shop", key="u-1", peer=PEER) == "token:shop"
    assert client_of(key="u-1", peer=PEER) == "key:u-1"
    assert client_of(key="", peer=PEER) == "peer:192.0.2.7"
    assert client_of(peer=("192.0.2.7", 9)) == client_of(peer=PEER)
    assert client_of() == "peer:"


def test_nobody_can_pass_for_another_kind_of_client() -> None:
    """A key that reads like a token's name, or like an address, is still a key."""
    names = [
        client_of(token="shop"),
        client_of(key="shop"),
        client_of(key="token:shop"),
        client_of(peer=("shop", 1)),
        client_of(key="192.0.2.7"),
        client_of(peer=PEER),
    ]
    assert all(one != other for one, other in combinations(names, 2))


def test_a_name_is_short_however_long_the_key() -> None:
    """Names are kept; the keys still count as different."""
    one, other = client_of(key="k" * 1000 + "1"), client_of(key="k" * 1000 + "\ud800")
    assert len(one) == len(other) == len("key:") + 64
    assert one != other


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("2001:db8:1:2:3:4:5:6", "peer:2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "peer:2001:db8:1:2::/64"),
        ("fe80::1%eth0", "peer:fe80::/64"),
        ("::1", "peer:::/64"),
        ("::ffff:192.0.2.7", "peer:192.0.2.7"),
        ("not:an:address", "peer:not:an:address"),
        ("localhost", "peer:localhost"),
    ],
)
def test_an_address_counts_as_far_as_one_client_owns_it(host: str, name: str) -> None:
    """64 bits of IPv6 are one household; IPv4 in IPv6 is IPv4."""
    assert client_of(peer=(host, 1)) == name
