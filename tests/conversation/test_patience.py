"""How long a kernel may take to say who it is, and what is said when it took longer."""

from __future__ import annotations

from kallichore.conversation.patience import StartPatience
from kallichore.errors import StartupReason

LIMIT = 30.0
CONNECTED = 100.0
FOREVER = float("inf")


def test_kernel_that_answers_nothing_gets_the_limit() -> None:
    """From when it was connected; missed heartbeats are no beginning of their own."""
    patience = StartPatience(LIMIT, CONNECTED)
    patience.miss_heartbeat(107)

    assert patience.ends_at == 130
    assert patience.complaint() == (
        "The kernel did not answer on its heartbeat, nor kernel_info_request, within 30 seconds",
        StartupReason.SILENT,
    )


def test_kernel_that_answers_its_heartbeat_may_take_as_long_as_it_likes() -> None:
    """It may run a long start-up file."""
    patience = StartPatience(LIMIT, CONNECTED)
    patience.hear_heartbeat()

    assert patience.ends_at == FOREVER


def test_kernel_that_falls_silent_gets_the_limit_from_then_on() -> None:
    """From the first heartbeat that it missed."""
    patience = StartPatience(LIMIT, CONNECTED)
    patience.hear_heartbeat()
    patience.miss_heartbeat(200)
    patience.miss_heartbeat(207)

    assert patience.ends_at == 230
    assert patience.complaint() == (
        "The kernel fell silent before it told who it is, for more than 30 seconds",
        StartupReason.SILENT,
    )

    patience.hear_heartbeat()

    assert patience.ends_at == FOREVER


def test_kernel_whose_answers_have_to_be_dropped_gets_the_limit() -> None:
    """Its heartbeat is no excuse: it will not do better. The latest reason is told."""
    patience = StartPatience(LIMIT, CONNECTED)
    patience.hear_heartbeat()
    patience.refuse("no delimiter", 110)
    patience.refuse("the signature does not fit", 111)

    text = (
        "The kernel did not answer kernel_info_request within 30 seconds: "
        "what it sent was dropped, the signature does not fit"
    )

    assert patience.ends_at == 140
    assert patience.complaint() == (text, StartupReason.NOT_UNDERSTOOD)


def test_what_began_first_ends_first() -> None:
    """Silent since it was connected, and then a message that had to be dropped."""
    patience = StartPatience(LIMIT, CONNECTED)
    patience.refuse("no delimiter", 110)

    assert patience.ends_at == 130


def test_session_without_a_limit_waits_for_ever() -> None:
    """The wait for a kernel can be without end, whatever the kernel does."""
    patience = StartPatience(FOREVER, CONNECTED)
    patience.refuse("no delimiter", 110)

    assert patience.ends_at == FOREVER


def test_fraction_of_a_second_is_told_as_such() -> None:
    """A limit is told as it was set."""
    text, _ = StartPatience(0.5, CONNECTED).complaint()

    assert text.endswith("within 0.5 seconds")
