"""A profile of somebody's NATs, as `teale doctor --save` keeps it, put into a world.

A profile says what was seen from outside, over IPv4, in RFC 4787's words. What was not seen is taken to be as with most
home routers: one port for everybody, and answers only from where something was sent to. Hairpinning and lifetimes are
not taken over; they stay those of the kind.
"""

import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from simulator.spec.access import Mixture
from simulator.spec.reading import TOML_BYTES_MAX, SpecError
from teale_proto.contract import Value
from teale_proto.nat.kinds import Filtering, Mapping

_MAPPINGS: Final = {kind.name.lower().replace("_", "-"): kind for kind in Mapping}
_FILTERINGS: Final = {kind.name.lower().replace("_", "-"): kind for kind in Filtering}
_SHORT: Final = ("ei", "ad", "apd")


class Seen(Value):
    """What is known of one version of IP; None is what is not."""

    udp_blocked: bool = False
    translated: bool | None = None
    mapping: str | None = None
    filtering: str | None = None

    def __post_init__(self) -> None:
        for field, known in (("mapping", _MAPPINGS), ("filtering", _FILTERINGS)):
            value = getattr(self, field)
            if value is not None and value not in known:
                raise ValueError(f"`{field}`: no {value!r}; there are {', '.join(known)}")


class Gateway(Value):
    """Whether the gateway opens ports, and by what."""

    port_mapping: str = ""


class Profile(Value):
    """The whole file; IPv6 knows no NATs, and is left out."""

    ipv4: Seen = Seen()
    gateway: Gateway = Gateway()

    @property
    def kind(self) -> str:
        """The name of the nearest of `simulator.spec.access.NAT_KINDS`, none of which promises more than was seen."""
        filtering = _FILTERINGS.get(self.ipv4.filtering or "", Filtering.ADDRESS_AND_PORT_DEPENDENT)
        if self.ipv4.translated is False:
            return "public" if filtering is Filtering.ENDPOINT_INDEPENDENT else "firewall"
        mapping = _MAPPINGS.get(self.ipv4.mapping or "", Mapping.ENDPOINT_INDEPENDENT)
        if mapping is Mapping.ADDRESS_DEPENDENT:
            filtering = max(filtering, Filtering.ADDRESS_DEPENDENT)
        return f"{_SHORT[mapping]}m-{_SHORT[filtering]}f"

    def access(self, like: Mixture) -> dict[str, Any]:
        """Return the description of an access behind these NATs, over the lines of another one."""
        return {
            "nats": {self.kind: 1.0},
            "lines": dict(like.lines),
            "udp_blocked": 1.0 if self.ipv4.udp_blocked else 0.0,
            "port_mapping": 1.0 if self.gateway.port_mapping in ("PCP", "NAT-PMP", "UPnP") else 0.0,
        }


def read_profile(path: Path) -> Profile:
    """Return the profile that a file holds; raises SpecError."""
    try:
        data = path.read_bytes()
        if len(data) > TOML_BYTES_MAX:
            raise SpecError(f"{path}: {len(data)} bytes are too many for a profile")
        found = tomllib.loads(data.decode())
        if "ipv4" not in found:
            raise SpecError(f"{path}: there is no [ipv4] in it; `teale doctor --save` writes such a file")
        return msgspec.convert(found, Profile)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise SpecError(f"{path}: {error}") from error
