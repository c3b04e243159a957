"""How front ends are spoken to: what a kernel publishes is for all, answers for who asked, our news are Jupyter's."""

from __future__ import annotations

import json
from math import inf
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import given, strategies as st

from kallichore.attach.frames import BINARY, LARGE, PING, TEXT
from kallichore.attach.outgoing import Outgoing
from kallichore.attach.pings import Pings
from kallichore.conversation.journal import Batch, Journal
from kallichore.conversation.requests import write_answer
from kallichore.jupyter.dialect import MOST_ASKED, Asked, JupyterDialect, to_client_message
from kallichore.session.clients import Attendance, Audience, Wish
from kallichore.session.overflow_file import OverflowFile
from kallichore.wire.client_messages import ClientMessageError, Sender, kernel_message, make, to_kernel
from kallichore.wire.envelope import KernelReader
from kallichore.wire.envelope_parts import LONGEST_HEADER
from kallichore.wire.frames import MessageParts, join
from kallichore.wire.jupyter_frames import V1, Parts, read_default, read_v1, write_default, write_v1
from kallichore.wire.signing import Signer
from returning_client import whole_frames

OURS = "session-of-the-server"
KERNELS = "session-of-the-kernel"
DEEP = b"[" * 2000 + b"]" * 2000
SIGNER = Signer("key")


@attrs.define
class Life:
    """Whether a kernel is dead, and no other on its way."""

    is_over: bool = True


def make_header(msg_type: str) -> dict[str, Any]:
    """Return the header of what the server says in the kernel's place."""
    return {"msg_id": "invented", "msg_type": msg_type, "session": OURS, "username": "", "date": "", "version": "5.3"}


def make_dialect(
    *asked: str, is_v1: bool = False, takes_buffers: bool = True, life: Life | None = None
) -> JupyterDialect:
    """Return how a front end is spoken to that asked this; its kernel is dead unless told otherwise."""
    dialect = JupyterDialect(
        is_v1=is_v1,
        takes_buffers=takes_buffers,
        asked=Asked(),
        is_dead=lambda: (life or Life()).is_over,
        write_header=make_header,
    )
    for msg_id in asked:
        dialect.asked.add(msg_id)
    return dialect


def said(
    msg_type: str,
    channel: str = "iopub",
    *,
    parent: bytes = b'{"msg_id":"question"}',
    content: bytes = b"{}",
    buffers: tuple[bytes, ...] = (),
    session: str = KERNELS,
) -> bytes:
    """Return what the journal has of a kernel's message, as it is read from the wire."""
    header = json.dumps({"msg_id": "m", "msg_type": msg_type, "session": session}).encode()
    parts = MessageParts(header, parent, b'{"meta":1}', content, buffers)
    return KernelReader(channel, SIGNER).read(join(parts, SIGNER)).payload


def printed(line: str) -> bytes:
    """Return what the journal has of a line that the kernel's process printed, or that the server added."""
    return kernel_message("output", ["stderr", line])


def exited(reason: str | None = "It crashed") -> bytes:
    """Return what the journal has of a kernel's exit."""
    return kernel_message("status", {"status": "exited", "reason": reason})


def batch_of(*payloads: bytes) -> Batch:
    """Return these messages as a batch."""
    return Batch(payloads, len(payloads), 0)


class Heard(NamedTuple):
    """A message as a front end has it."""

    opcode: int
    parts: Parts

    @property
    def header(self) -> dict[str, Any]:
        """What its header says."""
        read: dict[str, Any] = json.loads(self.parts.header)
        return read

    @property
    def content(self) -> dict[str, Any]:
        """What its content says."""
        read: dict[str, Any] = json.loads(self.parts.content)
        return read


def heard_in(dialect: JupyterDialect, frames: bytes) -> list[Heard]:
    """Return the messages in frames."""
    heard = []
    for opcode, payload, _ in whole_frames(frames):
        frame = payload.decode() if opcode == TEXT else payload
        heard.append(Heard(opcode, read_v1(payload) if dialect.is_v1 else read_default(frame)))
    return heard


def hear(dialect: JupyterDialect, *payloads: bytes) -> list[Heard]:
    """Return what a front end is told of this."""
    return heard_in(dialect, b"".join(dialect.frames(batch_of(*payloads))))


def types_of(heard: list[Heard]) -> list[str]:
    """Return the types of messages."""
    return [each.header["msg_type"] for each in heard]


framings = pytest.mark.parametrize("is_v1", [False, True])


# Who is told what


@framings
@pytest.mark.parametrize("parent", [b'{"msg_id":"question"}', b'{"msg_id":"another"}', b"{}", b"null", b'{"msg_id":7}'])
def test_what_the_kernel_publishes_goes_to_all(is_v1: bool, parent: bytes) -> None:
    """Whoever asked, or nobody."""
    dialect = make_dialect("question", is_v1=is_v1)

    assert types_of(hear(dialect, said("stream", parent=parent))) == ["stream"]


@framings
@pytest.mark.parametrize(
    ("msg_type", "channel"),
    [
        ("execute_reply", "shell"),
        ("interrupt_reply", "control"),
        ("input_request", "stdin"),
        ("comm_info_reply", "shell"),
    ],
)
@pytest.mark.parametrize(
    ("parent", "is_told"),
    [
        (b'{"msg_id":"question"}', True),
        (b'{"msg_type":"x","msg_id":"question","more":[{}]}', True),
        (b'{"msg_id":"another"}', False),
        (b'{"msg_id":"QUESTION"}', False),
        (b'{"msg_id":["question"]}', False),
        (b'{"msg_id":null}', False),
        (b'{"msg_type":"question"}', False),
        (b"{}", False),
        (b"null", False),
    ],
)
def test_answers_and_questions_are_only_for_who_asked(
    is_v1: bool, msg_type: str, channel: str, parent: bytes, is_told: bool
) -> None:
    """Which request is answered says the parent's id, whatever the kernel makes of it."""
    dialect = make_dialect("question", is_v1=is_v1)

    assert types_of(hear(dialect, said(msg_type, channel, parent=parent))) == [msg_type] * is_told


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("status", {"status": "busy", "reason": None}),
        ("status", {"status": "idle", "reason": "it is"}),
        ("output", ["stdout", "a line of the kernel's process\n"]),
        ("output", ["stderr", "not [kallichore] at the beginning\n"]),
        ("executionQueued", {"msg_id": "question"}),
        ("workingDirChanged", "/"),
        ("resourceUsage", {"cpu_percent": 1, "memory_bytes": 2}),
        ("clientDisconnected", "another client came"),
        ("exited", 1),
        ("handshakeCompleted", {"kernel_info": {}}),
        ("messagesLost", 3),
        ("somethingNew", {"status": "exited"}),
    ],
)
def test_other_news_are_not_for_front_ends(member: str, value: Any) -> None:
    """They know nothing of our own messages."""
    dialect, news = make_dialect(), kernel_message(member, value)

    assert dialect.frames(batch_of(news)) == [b"", b""]
    assert dialect.live(news) == b""


@framings
def test_line_of_the_server_is_a_stream(is_v1: bool) -> None:
    """Front ends show it among what the kernel printed."""
    (heard,) = hear(make_dialect(is_v1=is_v1), printed("[kallichore] The kernel uses much memory\n"))

    assert heard.parts.channel == "iopub"
    assert heard.header["msg_type"] == "stream"
    assert heard.content == {"name": "stderr", "text": "[kallichore] The kernel uses much memory\n"}
    assert heard.parts.parent_header == b"{}"


@framings
def test_exit_is_told_with_its_reason_and_then_as_death(is_v1: bool) -> None:
    """Front ends know a dead kernel by its status; why it died they are told as something that is printed."""
    stream, status = hear(make_dialect(is_v1=is_v1), exited("It was killed"))

    assert stream.header["msg_type"] == "stream"
    assert stream.content == {"name": "stderr", "text": "[kallichore] It was killed\n"}
    assert status.header["msg_type"] == "status"
    assert status.content == {"execution_state": "dead"}
    assert (status.parts.channel, status.parts.parent_header) == ("iopub", b"{}")


def test_exit_without_a_reason_is_told_all_the_same() -> None:
    """Then it is all that is known."""
    stream, status = hear(make_dialect(), exited(None))

    assert stream.content["text"].startswith("[kallichore] ")
    assert status.content == {"execution_state": "dead"}


def test_reason_that_was_told_is_not_told_again() -> None:
    """The server mostly prints it before the kernel's exit is news."""
    dialect = make_dialect()

    assert types_of(hear(dialect, printed("[kallichore] It crashed\n"), exited())) == ["stream", "status"]


def test_reason_of_each_exit_is_told_once() -> None:
    """The same one as of the kernel before is told again, as its line is there again."""
    dialect = make_dialect()
    line = printed("[kallichore] It crashed\n")

    assert types_of(hear(dialect, line, exited(), said("status"), line, exited())) == [
        *("stream", "status"),
        *("status", "stream", "status"),
    ]


def test_other_line_of_the_server_does_not_stand_for_the_reason() -> None:
    """What was told before was something else."""
    dialect = make_dialect()
    heard = hear(dialect, printed("[kallichore] The kernel uses much memory\n"), exited())

    assert types_of(heard) == ["stream", "stream", "status"]


def test_exit_within_a_restart_is_no_death() -> None:
    """Front ends would give the kernel up of which another is on its way."""
    life = Life(is_over=False)
    dialect = make_dialect(life=life)

    assert hear(dialect, exited()) == []

    life.is_over = True

    assert types_of(hear(dialect, exited())) == ["stream", "status"]


def test_exit_that_is_told_to_one_who_comes_later_is_the_same() -> None:
    """What is only for one front end, and at once, says no less."""
    dialect = make_dialect()

    assert types_of(heard_in(dialect, dialect.live(exited()))) == ["stream", "status"]


@framings
@pytest.mark.parametrize("count", [1, 12_345])
def test_lost_messages_are_told(is_v1: bool, count: int) -> None:
    """A gap is never silent."""
    dialect = make_dialect(is_v1=is_v1)
    (heard,) = heard_in(dialect, dialect.lost(count))

    assert heard.header["msg_type"] == "stream"
    assert heard.content["name"] == "stderr"
    assert heard.content["text"].startswith("[kallichore] ")
    assert str(count) in heard.content["text"]


def test_displaced_front_end_is_told_nothing() -> None:
    """Jupyter has no word for that."""
    assert make_dialect().farewell("Another came") == b""


# Floods


@attrs.frozen
class Said:
    """What a kernel says, or the server in its place, without metadata."""

    parent: bytes
    content: bytes
    buffers: tuple[bytes, ...]
    channel: str
    session: str

    def payload(self) -> bytes:
        """Return what the journal has of it."""
        header = json.dumps({"msg_id": "m", "msg_type": "stream", "session": self.session}, separators=(",", ":"))
        parts = MessageParts(header.encode(), self.parent, b"{}", self.content, self.buffers)
        return KernelReader(self.channel, SIGNER).read(join(parts, SIGNER)).payload


said_in_a_flood = st.builds(
    Said,
    st.sampled_from([b'{"msg_id":"question"}', b'{"msg_id":"another"}', b"{}"]),
    st.sampled_from([b"{}", b'{"text":"x"}', b'{"text":"%b"}' % (b"x" * 200), b'{"text":"%b"}' % (b"x" * LARGE)]),
    st.sampled_from([(), (b"few",), (b"m" * LARGE,)]),
    st.sampled_from(["iopub", "shell"]),
    st.sampled_from([KERNELS, KERNELS, "the-next", OURS]),
)


@framings
@given(st.lists(said_in_a_flood, max_size=6))
def test_messages_are_as_they_were_said_whatever_came_before(is_v1: bool, flood: list[Said]) -> None:
    """Each in two parts, a head and what it announces, empty where it is not for this front end."""
    dialect = make_dialect("question", is_v1=is_v1)
    frames = dialect.frames(batch_of(*(each.payload() for each in flood)))
    heard = heard_in(dialect, b"".join(frames))
    is_told = [each.channel == "iopub" or b"question" in each.parent for each in flood]
    told = [each for each, is_for_us in zip(flood, is_told, strict=True) if is_for_us]
    sessions, latest = [], OURS
    for each, is_for_us in zip(flood, is_told, strict=True):
        latest = latest if each.session == OURS else each.session
        sessions += [latest] if is_for_us else []

    assert [bool(frames[2 * place]) for place in range(len(flood))] == is_told
    assert [(each.parts.channel, each.parts.parent_header) for each in heard] == [
        (each.channel, each.parent) for each in told
    ]
    assert [(each.parts.content, tuple(each.parts.buffers)) for each in heard] == [
        (each.content, each.buffers) for each in told
    ]
    assert [each.header["session"] for each in heard] == sessions


@framings
@pytest.mark.parametrize("size", [0, 200, LARGE - 220, LARGE - 210, LARGE - 200, LARGE - 190, LARGE, 3 * LARGE])
def test_message_like_the_one_before_is_told_as_that_was(is_v1: bool, size: int) -> None:
    """What is published in a flood goes a way of its own; byte by byte it comes out the same."""
    content = b'{"text":"%b"}' % (b"x" * size)
    payload = Said(b'{"msg_id":"question"}', content, (), "iopub", KERNELS).payload()
    dialect = make_dialect(is_v1=is_v1)
    frames = [b"".join(dialect.frames(batch_of(payload))) for _ in range(3)]

    assert frames == [make_dialect(is_v1=is_v1).live(payload)] * 3


@framings
def test_batch_goes_on_behind_messages_that_are_alike(is_v1: bool) -> None:
    """Answers between them go to who asked, and what is said in the kernel's place has the kernel's latest session."""
    parent = b'{"msg_id":"question"}'

    def text(name: str, session: str = KERNELS, channel: str = "iopub") -> bytes:
        return Said(parent, b'{"text":"%b"}' % name.encode(), (), channel, session).payload()

    answers = [text("c", channel="shell"), text("d", channel="shell")]
    told = [text("a"), text("b"), *answers, text("e"), text("f", "the-next"), text("g", OURS)]
    dialect, other = make_dialect("question", is_v1=is_v1), make_dialect(is_v1=is_v1)
    heard, overheard = hear(dialect, *told, text("h")), hear(other, *told, text("h"))

    assert [each.content["text"] for each in heard] == [*"abcdefgh"]
    assert [each.parts.channel for each in heard] == [*["iopub"] * 2, *["shell"] * 2, *["iopub"] * 4]
    assert [each.content["text"] for each in overheard] == [*"abefgh"]
    assert [each.header["session"] for each in heard] == [*[KERNELS] * 5, "the-next", "the-next", KERNELS]


# Whose session it is


@framings
def test_what_is_said_in_the_kernels_place_is_of_its_session(is_v1: bool) -> None:
    """Another session is another kernel to front ends: they drop what is not shown yet."""
    dialect = make_dialect(is_v1=is_v1)
    heard = hear(dialect, said("stream"), printed("[kallichore] A line\n"), exited())
    heard += heard_in(dialect, dialect.lost(1))

    assert [each.header["session"] for each in heard] == [KERNELS] * 5


def test_latest_kernels_session_counts() -> None:
    """After a restart it is another, and an answer to somebody else says so as well."""
    dialect = make_dialect()
    hear(dialect, said("stream"), said("execute_reply", "shell", session="the-next"))

    assert [each.header["session"] for each in hear(dialect, exited())] == ["the-next"] * 2


@pytest.mark.parametrize(
    "header",
    [
        b'{"msg_id":"m","msg_type":"t"}',
        b'{"msg_id":"m","msg_type":"t","session":5}',
        b'{"msg_id":"m","msg_type":"t","session":""}',
    ],
)
def test_kernel_without_a_session_is_spoken_for_under_the_servers(header: bytes) -> None:
    """Front ends need one of some kind."""
    dialect = make_dialect("question")
    payload = KernelReader("iopub", SIGNER).read(join(MessageParts(header, b"{}", b"{}", b"{}", []), SIGNER)).payload
    answers = write_answer(make("execute_request", "question", {"code": "1"}), {"status": "aborted"}, make_header)
    heard = hear(dialect, payload, exited(), *answers)

    assert [each.header["session"] for each in heard[1:]] == [OURS] * 4


def test_server_speaks_for_a_kernel_that_never_spoke() -> None:
    """Its messages are whole, and the session is the server's own."""
    dialect = make_dialect()
    (heard,) = heard_in(dialect, dialect.lost(1))

    assert heard.header == make_header("stream")


@framings
def test_answer_in_the_kernels_place_is_of_its_session(is_v1: bool) -> None:
    """The server answers what a kernel does not live to. To front ends that is the same kernel, and so is what follows:
    else they drop the outputs that came before.
    """
    dialect = make_dialect("question", is_v1=is_v1)
    answers = write_answer(make("execute_request", "question", {"code": "1"}), {"status": "aborted"}, make_header)
    heard = hear(dialect, said("stream"), *answers, exited())

    assert types_of(heard) == ["stream", "execute_reply", "status", "stream", "status"]
    assert [each.header["session"] for each in heard] == [KERNELS] * 5
    assert heard[1].header == {**make_header("execute_reply"), "session": KERNELS}


# In which frames


@framings
def test_message_is_as_the_kernel_wrote_it(is_v1: bool) -> None:
    """Documents pass unread, whatever their spelling."""
    content = b'{"text" : "\\u00e9", "x":[1e2]}'
    (heard,) = hear(make_dialect(is_v1=is_v1), said("stream", content=content, buffers=(b"\xff\0", b"")))

    assert heard.parts == Parts(
        "iopub",
        json.dumps({"msg_id": "m", "msg_type": "stream", "session": KERNELS}).encode(),
        b'{"msg_id":"question"}',
        b'{"meta":1}',
        content,
        (b"\xff\0", b""),
    )


@framings
def test_message_without_a_parent_has_an_empty_one(is_v1: bool) -> None:
    """Front ends take null for an error."""
    (heard,) = hear(make_dialect(is_v1=is_v1), said("status", parent=b""))

    assert heard.parts.parent_header == b"{}"


@pytest.mark.parametrize(
    ("is_v1", "takes_buffers", "buffers", "opcode", "left"),
    [
        (False, True, (), TEXT, ()),
        (False, True, (b"\xff",), BINARY, (b"\xff",)),
        (False, True, (b"",), BINARY, (b"",)),
        (False, False, (), TEXT, ()),
        (False, False, (b"\xff", b"x"), TEXT, ()),
        (True, True, (), BINARY, ()),
        (True, False, (b"\xff",), BINARY, (b"\xff",)),
    ],
)
def test_buffers_go_to_who_can_read_them(
    is_v1: bool, takes_buffers: bool, buffers: tuple[bytes, ...], opcode: int, left: tuple[bytes, ...]
) -> None:
    """A gateway's reader ends at its first binary frame; it has the message without them. The subprotocol is binary."""
    dialect = make_dialect(is_v1=is_v1, takes_buffers=takes_buffers)
    (heard,) = hear(dialect, said("comm_msg", buffers=buffers))

    assert heard.opcode == opcode
    assert heard.parts.buffers == left


def test_text_frame_has_the_ids_beside_the_header_and_a_list_of_buffers() -> None:
    """As clients in Python read it."""
    frames = make_dialect().frames(batch_of(said("stream")))
    read = json.loads(frames[1])

    assert (read["msg_id"], read["msg_type"], read["channel"], read["buffers"]) == ("m", "stream", "iopub", [])


@framings
def test_deep_message_passes(is_v1: bool) -> None:
    """What is nested deeper than readers go travels as bytes; it still only goes to who asked."""
    dialect = make_dialect("question", is_v1=is_v1)
    another = b'{"msg_id":"another"}'
    heard = hear(
        dialect,
        said("display_data", content=DEEP, buffers=(b"\xff",)),
        said("execute_reply", "shell", content=DEEP, parent=another),
        said("execute_reply", "shell", content=DEEP),
        said("status", content=DEEP, parent=b""),
    )

    assert types_of(heard) == ["display_data", "execute_reply", "status"]
    assert [each.parts.content for each in heard] == [DEEP] * 3
    assert heard[0].parts.buffers == (b"\xff",)
    assert heard[2].parts.parent_header == b"{}"


@framings
@pytest.mark.parametrize("parent", [b'{"msg_id":"question"}', b"{}", b""])
@pytest.mark.parametrize("buffers", [(), (b"\xff\0", b"")])
@pytest.mark.parametrize(
    ("header", "metadata"),
    [
        (b'{"msg_id":"m","msg_type":"stream","long":"%b"}' % (b"x" * LONGEST_HEADER), b'{"meta":1}'),
        (b'{"msg_id":"m","msg_type":"stream"}', b'{"meta":%b}' % DEEP),
    ],
    ids=["long header", "deep metadata"],
)
def test_message_that_has_to_be_read_as_json_is_the_same(
    is_v1: bool, parent: bytes, buffers: tuple[bytes, ...], header: bytes, metadata: bytes
) -> None:
    """A header that does not end soon, and metadata that are too deep to be looked at, come out as they were."""
    frames = join(MessageParts(header, parent, metadata, b'{"text":"x"}', buffers), SIGNER)
    (heard,) = hear(make_dialect(is_v1=is_v1), KernelReader("iopub", SIGNER).read(frames).payload)

    assert heard.parts == Parts("iopub", header, parent or b"{}", metadata, b'{"text":"x"}', buffers)


@framings
def test_answer_with_deep_metadata_is_only_for_who_asked(is_v1: bool) -> None:
    """How it is read makes no difference."""
    parts = MessageParts(HEADER, b'{"msg_id":"question"}', b'{"meta":%b}' % DEEP, b"{}", ())
    payload = KernelReader("shell", SIGNER).read(join(parts, SIGNER)).payload

    assert len(hear(make_dialect("question", is_v1=is_v1), payload)) == 1
    assert hear(make_dialect(is_v1=is_v1), payload) == []


payloads = st.sampled_from(
    [
        said("stream"),
        said("stream", content=b'{"text":"%s"}' % (b"x" * 70_000)),
        said("comm_msg", buffers=(bytes(200),)),
        said("execute_reply", "shell"),
        said("execute_reply", "shell", parent=b'{"msg_id":"another"}'),
        printed("a line\n"),
        printed("[kallichore] It crashed\n"),
        exited(),
        exited("Something else"),
        b"",
    ]
)


@given(st.lists(payloads, max_size=30), st.booleans(), st.booleans())
def test_each_message_of_a_batch_has_two_parts(told: list[bytes], is_v1: bool, takes_buffers: bool) -> None:
    """Also what becomes several frames or none: from the parts that went out follows what was delivered."""
    dialect = make_dialect("question", is_v1=is_v1, takes_buffers=takes_buffers)
    frames = dialect.frames(batch_of(*told))
    one_by_one = make_dialect("question", is_v1=is_v1, takes_buffers=takes_buffers)

    assert len(frames) == 2 * len(told)
    for number, payload in enumerate(told):
        pair = frames[2 * number : 2 * number + 2]

        assert b"".join(pair) == one_by_one.live(payload) if payload else pair == [b"", b""]


@given(st.lists(payloads.filter(bool), min_size=1, max_size=30), st.booleans(), st.data())
def test_what_went_out_whole_is_given_wherever_it_broke(told: list[bytes], is_v1: bool, data: st.DataObject) -> None:
    """A message that becomes two frames is given with the second; one that is for others goes with its neighbours."""
    audience = Audience(Journal(1 << 30, 0, OverflowFile(), 1 << 30))
    audience.journal.extend(told)
    slot = audience.attach(Wish(Attendance.SHARE, 0))
    dialect = make_dialect("question", is_v1=is_v1)
    outgoing = Outgoing(slot, Pings(slot.deliveries, slot.delivery, slot.is_numbered, 20, 3, inf), dialect)
    frames = make_dialect("question", is_v1=is_v1).frames(batch_of(*told))
    sizes = [len(frames[index]) + len(frames[index + 1]) for index in range(0, len(frames), 2)]
    most = data.draw(st.integers(0, sum(sizes) + 100))
    sent = b""
    while len(sent) < most and (outgoing.pieces or outgoing.take_next(0)):
        piece = bytes(outgoing.pieces[0][: most - len(sent)])
        outgoing.went_out(len(piece))
        sent += piece
        if not outgoing.pieces:
            outgoing.settle(0)
    outgoing.settle(0)
    arrived = sum(end - start for start, end, opcode in spans_in(sent) if opcode != PING)
    given_bytes, rest = sum(sizes[: slot.delivery.given]), sizes[slot.delivery.given :]

    assert given_bytes <= arrived
    assert not any(rest) or arrived < given_bytes + next(filter(None, rest))


def spans_in(data: bytes) -> list[tuple[int, int, int]]:
    """Return where each whole frame begins and ends, and its first byte."""
    spans, start = [], 0
    for opcode, _, end in whole_frames(data):
        spans.append((start, end, opcode))
        start = end
    return spans


@framings
def test_subprotocol_is_chosen_by_its_name(is_v1: bool) -> None:
    """None is chosen for who did not offer it. Front ends do not say themselves what they have."""
    dialect = make_dialect(is_v1=is_v1)

    assert dialect.subprotocol == (V1 if is_v1 else None)
    assert dialect.goes_by_numbers is False


# What front ends say

HEADER = b'{"msg_id":"m","msg_type":"execute_request","session":"s","username":"u","date":1795415792.5,"more":[1]}'
REQUEST = Parts("shell", HEADER, b"{}", b'{"meta":1}', b'{"code" : "1"}', (b"\xff", b""))


def written(parts: Parts, *, is_v1: bool) -> str | bytes:
    """Return what a front end sends."""
    payload = b"".join((write_v1 if is_v1 else write_default)(parts))
    return payload if is_v1 or parts.buffers else payload.decode()


def request(**changes: Any) -> Parts:
    """Return a request with other parts."""
    return Parts(**{**{name: getattr(REQUEST, name) for name in Parts.__struct_fields__}, **changes})


@framings
@pytest.mark.parametrize("channel", ["shell", "control", "stdin"])
def test_request_reaches_the_kernel_as_it_was_sent(is_v1: bool, channel: str) -> None:
    """Who sent it and when says the front end; content, metadata and buffers are not touched."""
    message = make_dialect(is_v1=is_v1).read(written(request(channel=channel), is_v1=is_v1))
    parts = to_kernel(message, Sender(OURS, "server", "5.3"), "now")

    assert (message.channel, message.msg_id, message.msg_type) == (channel, "m", "execute_request")
    assert json.loads(parts.header) == {**json.loads(HEADER), "version": "5.3"}
    assert parts.parent_header == b"{}"
    assert (parts.metadata, parts.content, tuple(parts.buffers)) == (b'{"meta":1}', b'{"code" : "1"}', (b"\xff", b""))


@framings
def test_parent_of_a_request_is_kept(is_v1: bool) -> None:
    """An answer to a question of the kernel has one."""
    parent = b'{"msg_id":"q","session":"k"}'
    message = make_dialect(is_v1=is_v1).read(written(request(channel="stdin", parent_header=parent), is_v1=is_v1))

    assert message.parent_header == {"msg_id": "q", "session": "k"}
    assert message.keeps_header


@framings
def test_parent_that_is_null_is_none(is_v1: bool) -> None:
    """Some clients write it so where there is none."""
    message = make_dialect(is_v1=is_v1).read(written(request(parent_header=b"null"), is_v1=is_v1))

    assert message.parent_header is None


@framings
def test_who_asked_is_answered(is_v1: bool) -> None:
    """From when it asked on, and nobody else is."""
    asker, other = make_dialect(is_v1=is_v1), make_dialect(is_v1=is_v1)
    reply = said("execute_reply", "shell", parent=HEADER)

    assert hear(asker, reply) == []

    asker.read(written(REQUEST, is_v1=is_v1))

    assert types_of(hear(asker, reply)) == ["execute_reply"]
    assert hear(other, reply) == []


@framings
@pytest.mark.parametrize("channel", ["iopub", "heartbeat", "Shell", "shell ", "\u20ac"])
def test_other_channels_are_refused(is_v1: bool, channel: str) -> None:
    """Front ends only listen on iopub, and there are no others."""
    dialect = make_dialect(is_v1=is_v1)

    with pytest.raises(ClientMessageError, match="clients speak on shell, control, stdin"):
        dialect.read(written(request(channel=channel), is_v1=is_v1))

    assert "m" not in dialect.asked


@framings
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"header": b"{}"}, "msg_id and msg_type"),
        ({"header": b'{"msg_id":"m"}'}, "msg_id and msg_type"),
        ({"header": b'{"msg_type":"t"}'}, "msg_id and msg_type"),
        ({"header": b'{"msg_id":1,"msg_type":"t"}'}, "msg_id and msg_type"),
        ({"header": b'{"msg_id":"m","msg_type":null}'}, "msg_id and msg_type"),
        ({"header": b"[]"}, "header is no object"),
        ({"header": b"null"}, "header is no object"),
        ({"parent_header": b'"m"'}, "parent_header is no object"),
        ({"parent_header": b"[]"}, "parent_header is no object"),
    ],
)
def test_request_without_ids_is_refused(is_v1: bool, changes: dict[str, bytes], reason: str) -> None:
    """Nothing could be told to be its answer."""
    with pytest.raises(ClientMessageError, match=reason):
        make_dialect(is_v1=is_v1).read(written(request(**changes), is_v1=is_v1))


@framings
@pytest.mark.parametrize("part", ["header", "parent_header", "metadata", "content"])
@pytest.mark.parametrize("document", [b"", b"{", b'{"a":}', b"\xff", b"{} {}", b'{"a":%s' % DEEP])
def test_what_is_no_json_is_refused(is_v1: bool, part: str, document: bytes) -> None:
    """The kernel would end at it, some of them. Which part it is, is said where one can be told from the others."""
    with pytest.raises(ClientMessageError, match=f"^its {part} is " if is_v1 else None):
        make_dialect(is_v1=is_v1).read(written(request(**{part: document}), is_v1=is_v1))


@framings
@pytest.mark.parametrize("part", ["metadata", "content"])
def test_deep_request_reaches_the_kernel(is_v1: bool, part: str) -> None:
    """What is nested deeper than readers go travels as bytes."""
    document = b'{"a":%s}' % DEEP
    message = make_dialect(is_v1=is_v1).read(written(request(**{part: document}), is_v1=is_v1))

    assert getattr(message, part) == document


def test_text_is_none_of_the_subprotocols_messages() -> None:
    """Its messages are binary, both ways."""
    with pytest.raises(ClientMessageError, match="it is text"):
        make_dialect(is_v1=True).read(written(request(buffers=()), is_v1=False))


@given(st.text() | st.binary(max_size=80), st.booleans())
def test_whatever_a_front_end_sends_is_a_message_or_refused(data: str | bytes, is_v1: bool) -> None:
    """There is one error, and no other."""
    with pytest.raises(ClientMessageError):
        make_dialect(is_v1=is_v1).read(data)


documents = st.sampled_from(
    [
        b"{}",
        b"null",
        b"1",
        b"",
        b"[",
        b"\xff",
        b'"\xff"',
        b"NaN",
        b'"\\ud800"',
        HEADER,
        b'{"msg_id":"m","msg_type":NaN}',
    ]
) | st.binary(max_size=20)


@given(
    st.builds(Parts, st.sampled_from(["shell", "iopub", ""]) | st.text(), documents, documents, documents, documents)
)
def test_whatever_parts_are_is_a_message_or_refused(parts: Parts) -> None:
    """What is a message has ids, a channel of a client, and documents that pass as they are."""
    try:
        message = to_client_message(parts)
    except ClientMessageError:
        return

    assert isinstance(message.msg_id, str)
    assert message.channel == parts.channel == "shell"
    assert (message.content, message.metadata) == (parts.content, parts.metadata)


# What was asked


def test_oldest_requests_are_forgotten() -> None:
    """Of very many; what is open at a time is remembered."""
    asked = Asked()
    for number in range(MOST_ASKED):
        asked.add(str(number))

    assert "0" in asked

    asked.add("one more")

    assert "0" not in asked
    assert all(str(number) in asked for number in range(1, MOST_ASKED))
    assert "one more" in asked


def test_request_that_was_asked_twice_is_there_once() -> None:
    """It does not push others out."""
    asked = Asked()
    for number in range(MOST_ASKED):
        asked.add(str(number))
    asked.add("0")
    asked.add(str(MOST_ASKED - 1))

    assert all(str(number) in asked for number in range(MOST_ASKED))


@pytest.mark.parametrize("msg_id", [None, 1, ("m",)])
def test_what_is_no_id_was_not_asked(msg_id: object) -> None:
    """Kernels may write anything into a parent."""
    asked = Asked()
    asked.add("m")

    assert msg_id not in asked


@framings
def test_buffer_that_is_known_is_sent_as_it_came(is_v1: bool) -> None:
    """Nobody takes it out of base64 again; the message is the same."""
    known = (b"m" * LARGE,)
    payload = said("display_data", buffers=known)
    dialect, plain = make_dialect(is_v1=is_v1), make_dialect(is_v1=is_v1)
    dialect.buffers_of = lambda asked: known if asked is payload else ()
    frames = dialect.frames(batch_of(payload))

    assert frames[-1] is known[0]
    assert b"".join(frames) == b"".join(plain.frames(batch_of(payload)))
