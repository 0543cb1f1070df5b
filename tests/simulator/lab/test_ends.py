"""However an internet ends, nothing of it is left; and it takes no more than a user namespace to have one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulator.lab.errors import LabError
from simulator.lab.internet import Internet
from simulator.lab.privileges import missing
from tests.simulator.lab.talking import eventually

ROOT = Path(__file__).parents[3]
NOBODY = 65534

# Builds an internet, has a host behind a carrier's NAT be heard by a server, and tells what it is made of.
PROGRAM = """
import json, os, socket, sys, time
from simulator.lab.errors import LabError
from simulator.lab.internet import Internet
from simulator.nat_grid import KINDS
from simulator.net.link import Link

def bound(host, address):
    def make():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, 0))
        made.settimeout(10)
        return made
    return host.namespace.call(make)

net = Internet(seed=1)
for name in ("EIM+EIF", "APDM sequential", "carrier over home"):
    net.add_site(name, KINDS[name], Link(latency=1000), offers_port_mapping=name in sys.argv)
    net.add_host(f"host {name}", name)
net.add_server("server", ("192.0.2.1",), Link(latency=1000))
net.start()
server = bound(net.host("server"), "192.0.2.1")
seen = []
for name, site in net.sites.items():
    bound(net.host(f"host {name}"), "0.0.0.0").sendto(b"hello", server.getsockname())
    seen.append(server.recvfrom(99)[1][0] == site.outside)
net.reboot_nat("carrier over home")
net.block(["host EIM+EIF"], ["server"])
namespaces = [host.namespace for host in net.hosts.values()]
namespaces += [router for site in net.sites.values() for router in site.routers]
inodes = [os.stat(namespace.path).st_ino for namespace in namespaces]
left = [net.run_in(name, ["true"]).returncode for name in net.hosts]
print(json.dumps([inodes, all(seen) and not any(left)]), flush=True)
if "wait" in sys.argv:
    time.sleep(60)
net.close()
"""


def users(inodes: list[int]) -> list[str]:
    """Return the processes that are in one of these namespaces, or hold one open, or are a forwarder."""
    found = []
    names = {f"net:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        for link in (process / "ns" / "net", *_descriptors(process)):
            try:
                if os.readlink(link) in names:
                    found.append(process.name)
            except OSError:
                continue
    return found


def _descriptors(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []


def interfaces() -> set[str]:
    return {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    children = [int(word) for word in listed.split()]
    return children + [grandchild for child in children for grandchild in children_of(child)]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_nothing_is_left_of_an_internet_that_was_closed(means: None) -> None:
    before, descriptors = interfaces(), os.listdir("/proc/self/fd")
    # What other tests have left in this process, such as the tracker of multiprocessing's resources, stays.
    others = children_of(os.getpid())
    with Internet(seed=1) as net:
        net.add_site("home")
        net.add_host("alice", "home")
        net.add_server("server", ("192.0.2.1",), net.site("home").line)
        net.start()
        inodes = [os.stat(host.namespace.path).st_ino for host in net.hosts.values()]
        assert len(users(inodes)) == len(inodes)
        children = [child for child in children_of(os.getpid()) if child not in others]
        assert children
    assert users(inodes) == []
    assert not any(map(is_there, children))
    assert interfaces() == before
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_an_internet_whose_owner_was_killed(how: signal.Signals, means: None) -> None:
    before = interfaces()
    command = [sys.executable, "-c", PROGRAM, "wait", "EIM+EIF"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        inodes, works = json.loads(owner.stdout.readline())
        assert works
        children = children_of(owner.pid)
        assert len(children) >= 1
        assert len(users(inodes)) >= len(inodes)
        owner.send_signal(how)
    eventually(lambda: not any(map(is_there, children)), "its processes end")
    eventually(lambda: users(inodes) == [], "nobody holds its namespaces")
    assert interfaces() == before


def test_an_internet_that_cannot_be_started_is_taken_down_all_the_same(means: None) -> None:
    descriptors = os.listdir("/proc/self/fd")
    with Internet(seed=1) as net:
        net.add_site("home")
        net.add_host("alice", "home")
        net.add_server("server", ("no address",), net.site("home").line)
        with pytest.raises(LabError, match="`ip` failed"):
            net.start()
    assert os.listdir("/proc/self/fd") == descriptors
    net.close()


def as_nobody() -> list[str]:
    if os.geteuid():
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def run_as_nobody(python: str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program without privileges, by a Python that may not be the one that runs this."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *filter(None, sys.path)))}
    command = [*as_nobody(), python, "-c", program, python, "-c", PROGRAM]
    return subprocess.run(command, cwd="/", env=environ, timeout=60, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def python() -> str:
    """Return a Python that nobody may run in a user namespace; the one that runs this may be in somebody's home."""
    probe = "import sys; from simulator.lab.privileges import become_root; become_root([sys.argv[1], '-c', 'pass'])"
    for each in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if Path(each).exists() and run_as_nobody(each, probe).returncode == 0:
            return each
    pytest.skip("nobody may make a user namespace here, or run a Python in one")


def test_it_takes_no_privileges_where_user_namespaces_are_allowed(python: str) -> None:
    began = time.monotonic()
    program = "import sys; from simulator.lab.privileges import become_root; become_root(sys.argv[1:])"
    done = run_as_nobody(python, program)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout)[1]
    assert done.returncode == 0
    print(f"without privileges, from nothing to nothing in {time.monotonic() - began:.1f} s")


def test_what_is_missing_is_said_in_words(python: str) -> None:
    asked = "from simulator.lab import privileges; print(privileges.can_become_root(), privileges.missing())"
    said = run_as_nobody(python, asked).stdout
    assert said.startswith("True ['the right to make network namespaces")
    assert all(isinstance(each, str) for each in missing())
