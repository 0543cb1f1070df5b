"""Real nodes behind every kind of NAT that Linux can be, against each other: every cell ends as the matrix says."""

from itertools import combinations_with_replacement
from pathlib import Path

import pytest

from tests.e2e.harness import eventually
from tests.e2e.test_direct import ALTERNATE, at_home, check_answer, path_to

KINDS = ("public", "eim-eif", "eim-adf", "eim-apdf", "apdm-apdf", "udp-blocked")
RELAYED = {("eim-apdf", "apdm-apdf"), ("apdm-apdf", "apdm-apdf")}
"""Without guessing ports, beside all that have no UDP."""


@pytest.mark.soak
@pytest.mark.parametrize(("ours", "theirs"), [*combinations_with_replacement(KINDS, 2)])
def test_a_cell_of_the_matrix_on_real_kernels(ours: str, theirs: str, tmp_path: Path) -> None:
    is_relayed = (ours, theirs) in RELAYED or "udp-blocked" in (ours, theirs)
    with at_home(tmp_path, {"alice": ours, "bob": theirs}, ("--stun-alternate", ALTERNATE)) as (_, [alice, bob]):
        if is_relayed:
            eventually(lambda: path_to(alice, bob).get("path_reason", "").startswith("relayed: "), "all is tried")
        else:
            eventually(lambda: path_to(alice, bob).get("path") == "direct", "there is a direct path")
        check_answer(alice, bob, "relay" if is_relayed else "direct")
        print(ours, theirs, path_to(alice, bob).get("path_reason"))
