"""One task that waits for many sockets."""

import socket

import trio

from teale_io.poller import SOCKETS_PER_TURN, Poller


async def test_every_socket_with_something_to_read_is_served_until_it_has_been_read() -> None:
    pairs = [socket.socketpair() for _ in range(3 * SOCKETS_PER_TURN)]
    read: list[bytes] = []
    turns: list[int] = []
    poller: Poller[socket.socket] = Poller(lambda sock: read.append(sock.recv(2)))
    done = trio.Event()

    def turn() -> None:
        turns.append(len(read))
        if len(read) == 2 * len(pairs):
            done.set()

    for number, (near, far) in enumerate(pairs):
        poller.add(near, near)
        far.send(b"%04d" % number)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run, turn)
            await done.wait()
            nursery.cancel_scope.cancel()
    assert sorted(read) == sorted(
        half for number in range(len(pairs)) for half in (b"%02d" % (number // 100), b"%02d" % (number % 100))
    )
    assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) <= SOCKETS_PER_TURN
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_a_socket_that_was_removed_is_not_served() -> None:
    near, far = socket.socketpair()
    other, stranger = socket.socketpair()
    served: list[str] = []
    done = trio.Event()

    def read(name: str) -> None:
        served.append(name)
        done.set()
        poller.remove(other)

    poller: Poller[str] = Poller(read)
    poller.add(near, "near")
    poller.add(other, "other")
    poller.remove(near)
    far.send(b"x")
    stranger.send(b"x")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run, lambda: None)
            await done.wait()
            nursery.cancel_scope.cancel()
    assert served == ["other"]
    for sock in (near, far, other, stranger):
        sock.close()
