"""Ports for a kernel: distinct, nobody else's, and the kernel's own when it binds them."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack

import pytest
import zmq

from conftest import open_descriptors
from kallichore.errors import ConnectionInfoError
from kallichore.kernel.ports import reserve_ports

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be held for somebody else")


def test_ports_of_a_reservation_differ() -> None:
    """A kernel gets as many different ports as it asks for, five by default."""
    taken: set[int] = set()
    with reserve_ports(taken) as five, reserve_ports(taken, count=2) as two:
        counts = len(set(five.ports)), len(set(two.ports))
        promised = set(taken)

    assert (5, 2) == counts
    assert promised == {*five.ports, *two.ports}


def test_thirty_reservations_at_once_share_no_port() -> None:
    """Thirty kernels that start together are promised a hundred and fifty different ports."""
    taken: set[int] = set()
    with ExitStack() as stack:
        reservations = [stack.enter_context(reserve_ports(taken)) for _ in range(30)]
        ports = {port for reservation in reservations for port in reservation.ports}

    assert len(ports) == 150


@linux_only
def test_servers_that_know_nothing_of_each_other_share_no_port() -> None:
    """A port that one server holds is not given to another server, nor to any socket that asks the system for one."""
    with ExitStack() as stack:
        held = [port for _ in range(30) for port in stack.enter_context(reserve_ports(set())).ports]
        others = []
        for _ in range(200):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            others.append(sock.getsockname()[1])

    assert len(set(held)) == 150
    assert set(held).isdisjoint(others)


@linux_only
def test_kernel_can_bind_and_serve_while_its_ports_are_held() -> None:
    """A ZeroMQ socket binds a held port, and a peer reaches it, before the reservation is closed and after."""
    with zmq.Context() as context, reserve_ports(set()) as reservation:
        with context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
            for sock in (router, dealer):
                sock.linger = 0
                sock.rcvtimeo = 5000
            router.bind(f"tcp://127.0.0.1:{reservation.ports[0]}")
            dealer.connect(f"tcp://127.0.0.1:{reservation.ports[0]}")
            dealer.send(b"held")
            received = [router.recv_multipart()[1]]
            reservation.close()
            dealer.send(b"closed")
            received.append(router.recv_multipart()[1])

    assert received == [b"held", b"closed"]


@linux_only
def test_nobody_can_connect_before_the_kernel_listens() -> None:
    """A held port refuses connections: a client that is early sees no kernel rather than a silent one."""
    with reserve_ports(set(), count=1) as reservation, socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", reservation.ports[0]))


def test_closed_reservation_promises_nothing_and_holds_no_descriptor() -> None:
    """Closing gives up the promise and the sockets; closing again does nothing."""
    descriptors = open_descriptors()
    taken = {1}
    reservation = reserve_ports(taken)
    reservation.close()
    reservation.close()

    assert taken == {1}
    assert open_descriptors() == descriptors


def test_second_close_does_not_break_another_promise() -> None:
    """A port that was closed and promised to another kernel stays promised when the first closes again."""
    taken: set[int] = set()
    first = reserve_ports(taken, count=1)
    first.close()
    # Stands for another reservation that was offered the same number by the system.
    taken.update(first.ports)
    first.close()

    assert taken == set(first.ports)


def test_no_free_ports_raise_and_leave_nothing() -> None:
    """Where the system has no port to offer, the error is KS-18, and nothing stays promised or open."""
    descriptors = open_descriptors()
    taken: set[int] = set()

    with pytest.raises(ConnectionInfoError) as caught:
        # TEST-NET-1 (RFC 5737) is no address of this machine.
        reserve_ports(taken, ip="192.0.2.1")

    assert caught.value.code == "KS-18"
    assert taken == set()
    assert open_descriptors() == descriptors


@linux_only
def test_exhausted_descriptors_raise_and_leave_nothing() -> None:
    """A reservation that runs out of descriptors half way closes those that it had opened."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: set[int] = set()
    descriptors = open_descriptors()
    spare = [os.dup(0)]
    os.close(spare[0])
    try:
        # The lowest free number and one more fit below the limit; then it is reached.
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare[0] + 2, hard))
        with pytest.raises(ConnectionInfoError):
            reserve_ports(taken, count=100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert taken == set()
    assert open_descriptors() == descriptors
