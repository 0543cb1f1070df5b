import pytest

from simulator.view.words import box_of


@pytest.mark.parametrize(
    ("behind", "title"),
    [
        ("", "No NAT"),
        ("firewall", "Firewall"),
        ("EIM+EIF", "Open NAT (full cone)"),
        ("EIM+APDF", "Port-restricted NAT"),
        ("APDM+APDF without UDP", "Symmetric NAT, no UDP"),
        ("APDM+APDF behind EIM+APDF", "Symmetric NAT behind port-restricted NAT"),
        ("something new", "something new"),
        ("EIM+APDF without UDP, on Sundays", "EIM+APDF without UDP, on Sundays"),
    ],
)
def test_every_box_has_a_name_in_words(behind: str, title: str) -> None:
    assert box_of(behind).title == title
    assert box_of(behind).code == behind


def test_a_box_says_what_it_does() -> None:
    words = box_of("EIM+APDF without UDP behind APDM+ADF").words
    assert words == (
        "one outside port for all whom it talks to; lets in only the address and port that was sent to before; "
        "lets no UDP pass; before that: another outside port for each address and port that it talks to; "
        "lets in addresses that were sent to before"
    )
