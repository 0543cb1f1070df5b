"""A gateway that opens ports on request: miniupnpd in a router's namespace, for PCP, NAT-PMP and UPnP.

A shell stands guard over it and ends it when the lab's end of a pipe is closed, by whatever cause. It has no files:
its configuration and what it says are in memory.
"""

import os
import subprocess
import time
from typing import Final

from simulator.lab.errors import LabError
from simulator.lab.namespaces import Namespace, tool
from simulator.lab.routers import INSIDE, OUTSIDE

PROGRAM: Final = "miniupnpd"

RULES: Final = """
table inet mapped {
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain forward {
    type filter hook forward priority -10;
    jump miniupnpd
  }
  chain prerouting {
    type nat hook prerouting priority -110;
    jump prerouting_miniupnpd
  }
  chain postrouting {
    type nat hook postrouting priority 90;
    jump postrouting_miniupnpd
  }
}
"""
"""Where it puts its own rules: a table beside the router's, which lets pass whatever was sent to another address."""

_CONFIG: Final = f"""
ext_ifname={OUTSIDE}
listening_ip={INSIDE}
enable_natpmp=yes
enable_upnp=yes
http_port=5000
secure_mode=yes
min_lifetime=120
max_lifetime=86400
allow 1024-65535 10.0.0.0/8 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
upnp_table_name=mapped
upnp_nat_table_name=mapped
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
"""
_GUARD: Final = '"$@" >/dev/null & read -r _; kill -KILL $!; wait'
_STARTS_SECONDS: Final = 10.0
_READY: Final = ("HTTP listening", "Listening for NAT-PMP/PCP")


class PortMapper:
    """One miniupnpd, from the moment at which it answers until it is closed."""

    def __init__(self, router: Namespace) -> None:
        """Start it; raises LabError where it does not."""
        program = tool(PROGRAM)
        if program is None:
            raise LabError(f"the program `{PROGRAM}` is needed for sites that offer port mapping")
        self._files = [os.memfd_create(name) for name in ("miniupnpd.conf", "miniupnpd said")]
        config, said = self._files
        os.write(config, _CONFIG.encode())
        os.lseek(config, 0, os.SEEK_SET)
        pid_file = f"/dev/null/{os.getpid()}"  # a place where nothing can be
        command = (*router.prefix, "sh", "-c", _GUARD, "sh", program, "-d", "-f", f"/dev/fd/{config}", "-P", pid_file)
        self._guard = subprocess.Popen(  # noqa: S603 - our own words
            command, stdin=subprocess.PIPE, stderr=said, pass_fds=(config,), start_new_session=True
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it; what it had opened stays open until the rules are gone."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
        while self._files:
            os.close(self._files.pop())

    def _wait(self) -> None:
        gives_up_at = time.monotonic() + _STARTS_SECONDS
        while True:
            said = os.pread(self._files[1], 1 << 20, 0).decode(errors="replace")
            if all(words in said for words in _READY):
                return
            if time.monotonic() > gives_up_at:
                raise LabError(f"{PROGRAM} does not start: {said.strip() or 'it says nothing'}")
            time.sleep(0.005)  # and looks again
