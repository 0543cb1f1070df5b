"""What `teale doctor` finds on this machine: configuration, identity, ports, network interfaces, disk, open files.

Looking changes nothing: no identity is made, no port is kept, nobody is spoken to.
"""

import os
import shutil
import socket
import struct
import time
from collections.abc import Mapping
from enum import Enum
from random import SystemRandom
from typing import Final

import msgspec

from teale_io.cli.client import NodeApi
from teale_io.cli.exits import CliError
from teale_io.cli.output import short
from teale_io.cli.process import FoundNode
from teale_io.config import Config
from teale_io.connections import reason_of
from teale_io.interfaces import LocalAddress, local_addresses
from teale_io.keychain import IdentityError, load_or_create_identity, passphrase_from, read_marker
from teale_io.listener import bind
from teale_io.paths import Paths

MIB: Final = 1 << 20
DISK_LOW_BYTES: Final = 1024 * MIB
DISK_FULL_BYTES: Final = 50 * MIB
FILES_ENOUGH: Final = 1024
"""Open files: 512 connections on the LAN, 256 to the API, and what models need."""

FILES_TOO_FEW: Final = 256
MDNS_V4: Final = "224.0.0.251"
MDNS_V6: Final = "ff02::fb"
"""RFC 6762, section 3."""


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """The node works, but not as well as it could."""
    FAIL = "fail"
    """Something that was asked for does not work."""


class Finding(msgspec.Struct, frozen=True):
    """What one check has found, and what to do about it."""

    check: str
    status: Level
    found: str
    advice: str = "Nothing to do."


def ok(check: str, found: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(check, Level.OK, found)


def warn(check: str, found: str, advice: str) -> Finding:
    """Return a finding that should be looked at."""
    return Finding(check, Level.WARN, found, advice)


def fail(check: str, found: str, advice: str) -> Finding:
    """Return a finding that has to be mended."""
    return Finding(check, Level.FAIL, found, advice)


def configuration(paths: Paths, node: FoundNode | None) -> Finding:
    """Judge a configuration file that could be read."""
    file = paths.config_file
    try:
        changed_at = file.stat().st_mtime
        if node is not None and changed_at > paths.runtime_file.stat().st_mtime:
            return warn(
                "configuration",
                f"{file} was changed after the node had started",
                "To take the changes up: teale down, teale up",
            )
    except FileNotFoundError:
        return ok("configuration", f"there is no {file}: all keys have their defaults")
    return ok("configuration", str(file))


def identity(paths: Paths, config: Config, environ: Mapping[str, str], node: FoundNode | None) -> Finding:
    """Say whether the node's secret key is where it should be; one that is not there yet is not made."""
    try:
        marker = read_marker(paths)
        if marker is None:
            return ok("identity", "there is none yet; the first `teale up` makes it")
        found = f"node {short(marker.node_id)}, its key in: {marker.storage}"
        if node is not None and node.runtime.node_id != marker.node_id:
            return fail(
                "identity",
                f"{found}; but the running node is {short(node.runtime.node_id)}",
                f"Somebody has replaced {paths.identity_marker}; restore it, or restart the node.",
            )
        if node is not None:
            return ok("identity", f"{found}; the running node has it")
        passphrase = passphrase_from(environ)
        if marker.storage == "encrypted-file" and not passphrase:
            return warn(
                "identity", f"{found}; not opened here", "Set TEALE_PASSPHRASE to have it tried; `teale up` will ask."
            )
        load_or_create_identity(paths, config.identity_storage, passphrase=lambda: passphrase, entropy=SystemRandom())
    except IdentityError as error:
        return fail("identity", str(error), "Without its key the node does not start: do what is said there.")
    return ok("identity", f"{found}; it can be read")


def api(config: Config, node: FoundNode | None) -> Finding:
    """Say whether the local API answers or, while no node runs, could listen."""
    if node is None:
        return _port("api", config.api_host, config.api_port, "api_port")
    url = node.runtime.api_url
    if not node.is_answering:
        return fail(
            "api",
            f"process {node.runtime.pid} runs, but does not answer at {url}",
            "Wait a moment; if it goes on, restart it: teale down, teale up",
        )
    began_at = time.perf_counter()
    try:
        with NodeApi(url) as client:
            client.get("/health")
    except CliError as error:
        return fail("api", str(error), "Restart the node: teale down, teale up")
    return ok("api", f"the node answers at {url}, in {milliseconds(time.perf_counter() - began_at)}")


def lan_port(config: Config, node: FoundNode | None) -> Finding:
    """Say whether others on the local network can connect here, as far as this machine knows."""
    if not config.lan_enabled:
        return ok("lan port", "off (lan_enabled is false)")
    if node is None or config.lan_port == 0:
        return _port("lan port", config.lan_host, config.lan_port, "lan_port")
    if _why_not(config.lan_host, config.lan_port):
        return ok("lan port", f"port {config.lan_port} is held, as it should be while the node runs")
    return fail(
        "lan port",
        f"a node runs, but nobody listens on port {config.lan_port}",
        "Restart it, so that it takes up its configuration: teale down, teale up",
    )


def lan_interfaces(config: Config) -> Finding:
    """Say by which of its addresses others can find this machine, and whether multicast works on them."""
    if not config.lan_enabled:
        return ok("lan", "off (lan_enabled is false)")
    addresses = local_addresses(config.lan_interfaces)
    if not addresses:
        wanted = ", ".join(config.lan_interfaces)
        advice = (
            f"Nothing here is called {wanted}: teale config set lan_interfaces []"
            if wanted
            else "Connect to a network, or switch the search off: teale config set lan_enabled false"
        )
        return warn("lan", "no network interface to be found on", advice)
    deaf = [each for each in addresses if not _hears_multicast(each)]
    names = ", ".join(dict.fromkeys(f"{each.interface} {each.address}" for each in addresses))
    if len(deaf) == len(addresses):
        return warn(
            "lan",
            f"{names}; none of them takes multicast, by which nodes find each other",
            "Use an interface that does (lan_interfaces), or let nodes meet through a relay (wan_enabled).",
        )
    return ok("lan", f"{names}; multicast can be heard")


def disk(paths: Paths) -> Finding:
    """Say how much room there is for keys, logs and configuration."""
    folder = paths.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free // MIB:,} MiB free at {folder}"
    advice = "Make room: without it neither the log nor a changed configuration can be written."
    if free < DISK_FULL_BYTES:
        return fail("disk", found, advice)
    return warn("disk", found, advice) if free < DISK_LOW_BYTES else ok("disk", found)


def open_files() -> Finding:
    """Say how many files and connections a process may have open."""
    if os.name == "nt":
        return ok("open files", "this system has no such limit")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_ENOUGH:
        return ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft}")
    advice = f"Raise the limit before starting the node: ulimit -n {FILES_ENOUGH}"
    if hard != resource.RLIM_INFINITY and hard < FILES_ENOUGH:
        advice = f"Have the administrator raise the hard limit, now {hard}, to {FILES_ENOUGH}."
    found = f"up to {soft}, where a busy node wants {FILES_ENOUGH}"
    return (fail if soft < FILES_TOO_FEW else warn)("open files", found, advice)


def milliseconds(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _port(check: str, host: str, port: int, key: str) -> Finding:
    if port == 0:
        return ok(check, "any port that is free")
    reason = _why_not(host, port)
    if not reason:
        return ok(check, f"port {port} is free")
    return fail(
        check,
        f"port {port} cannot be listened on: {reason}",
        f"End the program that has it, or choose another: teale config set {key} PORT",
    )


def _why_not(host: str, port: int) -> str:
    try:
        bind(host, port).close()
    except OSError as error:
        return reason_of(error)
    return ""


def _hears_multicast(address: LocalAddress) -> bool:
    family = socket.AF_INET6 if address.is_v6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if address.is_v6:
                group = socket.inet_pton(family, MDNS_V6) + struct.pack("@I", address.interface_index)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            else:
                group = socket.inet_aton(MDNS_V4) + socket.inet_aton(address.address)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    except OSError:
        return False
    return True
