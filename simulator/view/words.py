"""What stands between a host and the internet, from the terms of RFC 4787 into words."""

from typing import Final

from simulator.view.model import Box

_MAPPINGS: Final = {
    "EIM": "one outside port for all whom it talks to",
    "ADM": "another outside port for each address that it talks to",
    "APDM": "another outside port for each address and port that it talks to",
}
_FILTERINGS: Final = {
    "EIF": "lets in anybody",
    "ADF": "lets in addresses that were sent to before",
    "APDF": "lets in only the address and port that was sent to before",
}
_TITLES: Final = {
    "EIM+EIF": "Open NAT (full cone)",
    "EIM+ADF": "Address-restricted NAT",
    "EIM+APDF": "Port-restricted NAT",
}
_WITHOUT_UDP: Final = " without UDP"
_BEHIND: Final = " behind "
_PUBLIC: Final = Box("", "No NAT", "public addresses: anybody can reach these")
_FIREWALL: Final = "firewall"


def box_of(behind: str) -> Box:
    """Return the box that a host of `HostInfo.behind` is in; what is not known here is its own name."""
    if not behind:
        return _PUBLIC
    boxes = [_one(code) for code in behind.split(_BEHIND)]
    title = " behind ".join(title if index == 0 else _small(title) for index, (title, _) in enumerate(boxes))
    return Box(behind, title, "; before that: ".join(words for _, words in boxes if words))


def _one(code: str) -> tuple[str, str]:
    kind, without, rest = code.partition(_WITHOUT_UDP)
    if rest:
        return code, ""
    blocked = "; lets no UDP pass" if without else ""
    suffix = ", no UDP" if without else ""
    if kind == _FIREWALL:
        return f"Firewall{suffix}", f"addresses stay as they are; lets in answers only{blocked}"
    mapping, _, filtering = kind.partition("+")
    if mapping not in _MAPPINGS or filtering not in _FILTERINGS:
        return code, ""
    title = _TITLES.get(kind, "Symmetric NAT")
    return f"{title}{suffix}", f"{_MAPPINGS[mapping]}; {_FILTERINGS[filtering]}{blocked}"


def _small(title: str) -> str:
    return title if title.startswith("No ") else title[:1].lower() + title[1:]
