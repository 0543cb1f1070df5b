"""Routers of the kernel's own, by the kind of NAT that they are: rules for nftables."""

_FORWARDING = """
table ip router {
    map inside { type inet_service : ipv4_addr; flags dynamic,timeout; timeout 5m; size 4096; }
    set spoken { type inet_service . ipv4_addr; flags dynamic,timeout; timeout 5m; size 4096; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        BLOCK
        iifname "INSIDE" oifname "OUTSIDE" udp sport != 0 update @inside { udp sport : ip saddr }
        iifname "INSIDE" oifname "OUTSIDE" udp sport != 0 update @spoken { udp sport . ip daddr }
        iifname "INSIDE" accept
        ct state established,related accept
        ct status dnat accept
        UNSOLICITED
    }
    chain input {
        type filter hook input priority 0;
        iifname "OUTSIDE" ct state new drop
    }
    chain prerouting {
        type nat hook prerouting priority -100;
        DNAT
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        SNAT
    }
}
"""
_TO_WHOEVER_SENT = 'iifname "OUTSIDE" {condition} dnat to udp dport map @inside'
KINDS = {
    "public": {"UNSOLICITED": "accept"},
    "firewall": {},
    "eim-eif": {
        "SNAT": 'oifname "OUTSIDE" masquerade',
        "DNAT": _TO_WHOEVER_SENT.format(condition="meta l4proto udp"),
    },
    "eim-adf": {
        "SNAT": 'oifname "OUTSIDE" masquerade',
        "DNAT": _TO_WHOEVER_SENT.format(condition="udp dport . ip saddr @spoken"),
    },
    "eim-apdf": {"SNAT": 'oifname "OUTSIDE" masquerade'},
    "apdm-apdf": {"SNAT": 'oifname "OUTSIDE" masquerade fully-random'},
    "udp-blocked": {"SNAT": 'oifname "OUTSIDE" masquerade', "BLOCK": "meta l4proto udp drop"},
}
"""What stands at the places of the rules; without SNAT it translates nothing."""


def rules_of(kind: str, *, inside: str, outside: str) -> str:
    """Return the rules of a router of one kind between two interfaces."""
    rules = _FORWARDING
    for place in ("BLOCK", "UNSOLICITED", "DNAT", "SNAT"):
        rules = rules.replace(place, KINDS[kind].get(place, ""))
    return rules.replace("INSIDE", inside).replace("OUTSIDE", outside)
