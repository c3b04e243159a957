"""Kernels in pods: a real host and kernel in each, on a small Kubernetes of our own that says what a real one says."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from engines.kube_server import (
    IMAGE,
    PYTHON,
    KubeError,
    KubeServer,
    make_server_certificate,
    open_kube_server,
)
from engines.provisioning import until
from hosts import IOPUB, PATIENCE, PLAIN_KERNEL, SECRET, SHELL, connect_all, read, tell
from kallichore.config import ServerConfig
from kallichore.engines.certificate import make_certificate
from kallichore.engines.dial_in import open_dial_in
from kallichore.engines.engine import EngineServices, Order, Ticket, Waiting
from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.kubernetes import KubernetesEngine, KubernetesJob, open_engine
from kallichore.engines.kubernetes_options import labels_of
from kallichore.engines.reach import Reach
from kallichore.errors import EngineError, HostGoneError
from kallichore.kernel.ending import Ending
from kallichore.models.bodies import InterruptMode, NewSession, Status
from kallichore.server import open_server
from kernels import REAL_TIME, ipykernel_argv
from plain_kernel import lines

if sys.platform != "linux":
    pytest.skip("pods run on Linux", allow_module_level=True)

OWNER = "a server"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be ended is tried again soon."""
    monkeypatch.setattr("kallichore.engines.kubernetes_cluster.LEFT_PAUSE", 0.1)


@attrs.define(eq=False)
class Setting:
    """A cluster, and an engine that uses it."""

    server: KubeServer
    engine: KubernetesEngine
    told: list[Waiting | None] = attrs.field(factory=list)

    def order(self, **options: Any) -> Order:
        """Return an order for a plain kernel."""
        return Order(
            session_id="s",
            label="My session",
            secret=SECRET,
            argv=PLAIN_KERNEL,
            actions=(),
            working_directory=None,
            connection={"key": "k", "signature_scheme": "hmac-sha256"},
            abandon_after=0,
            options={"kubeconfig": str(self.server.kubeconfig), "image": IMAGE, "python": PYTHON, **options},
        )

    @asynccontextmanager
    async def job(
        self, ticket: Ticket | None = None, *, is_new: bool = True, **options: Any
    ) -> AsyncIterator[KubernetesJob]:
        """Have a job; it is ended on leaving."""
        order = self.order(**options)
        ticket = ticket or self.engine.ticket(order)
        async with self.engine.open_job(order, ticket, self.told.append, is_new=is_new) as job:
            try:
                yield job
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE):
                    await job.end()

    @asynccontextmanager
    async def link(self, job: KubernetesJob, *, is_left: bool = False) -> AsyncIterator[HostLink]:
        """Attach to the host of a job, and let it go at the end, unless it is left to the next server."""
        async with open_link(Reach(job.connect, job.name, lambda _: None), SECRET) as link:
            yield link
            if not is_left:
                link.release()
                link.flush()
                await link.lost.wait()

    @property
    def reasons(self) -> list[str]:
        """Why it waited, each reason once."""
        return list(dict.fromkeys(each.reason for each in self.told if each is not None))


@asynccontextmanager
async def open_setting(place: Path) -> AsyncIterator[Setting]:
    """Have a cluster, a desk and an engine."""
    (place / "pods").mkdir()
    async with (
        open_kube_server(place / "pods") as server,
        open_dial_in("127.0.0.1", 0, make_certificate()) as desk,
        open_engine(EngineServices(place, OWNER, lambda: desk)) as engine,
    ):
        with trio.fail_after(PATIENCE):
            yield Setting(server, engine)
            await until_empty(server)


async def until_empty(server: KubeServer) -> None:
    """Wait until nothing is left in the cluster."""
    await until(lambda: not (server.cluster.items["pods"] or server.cluster.items["secrets"]))


async def test_kernel_in_a_pod_is_talked_to_like_any_other(tmp_path: Path) -> None:
    """A flood from it, and what is sent to it, are whole; its node is known; nothing is left of it at the end."""
    flood, payload = lines(20_000, 100), b"x" * 100_000
    async with open_setting(tmp_path) as setting, setting.job() as job, setting.link(job) as link:
        await connect_all(link)
        tell(link, "flood 20000 100")
        link.send(SHELL, payload)
        came = await read(link, SHELL, len(payload)), await read(link, IOPUB, len(flood))
        await until(lambda: job.node)
        node, name = job.node, job.name

    assert (payload, flood) == came
    assert ("node-1", True) == (node, name.startswith("in pod kc-my-session-"))


async def test_secrets_are_in_no_pod(tmp_path: Path) -> None:
    """What others may look at, a pod, has neither the secret nor the host's program; the Secret has."""
    async with open_setting(tmp_path) as setting, setting.job() as job, setting.link(job):
        pod = setting.server.cluster.items["pods"][job.pod]
        secret = setting.server.cluster.items["secrets"][job.pod]
        texts = str(pod), str(secret)

    assert SECRET.hex() not in texts[0]
    assert labels_of(OWNER, "My session") == pod["metadata"]["labels"] == secret["metadata"]["labels"]
    assert pod["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"memory": "900Gi"}, "Unschedulable: 0/1 nodes are available: 1 Insufficient memory"),
        ({"node_selector": {"a": "b"}}, "Unschedulable: 0/1 nodes are available: 1 node(s) didn't match"),
        ({"image": "nowhere:1"}, "ErrImagePull: the image cannot be pulled: cannot pull nowhere:1"),
    ],
)
async def test_pod_that_waits_says_why(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    """Why a pod has no node, or no container, is told as long as it waits."""
    async with open_setting(tmp_path) as setting, setting.job(**options):
        await until(lambda: any(each.startswith(reason) for each in setting.reasons))

    assert any(each.startswith(reason) for each in setting.reasons)


async def test_pod_that_can_never_run_is_an_error(tmp_path: Path) -> None:
    """An image whose name is none is not waited for."""
    async with open_setting(tmp_path) as setting, setting.job(image="no name") as job:
        with pytest.raises(HostGoneError) as info:
            await job.connect()

    assert f"its pod {job.pod} cannot start: InvalidImageName: the image's name is none" in str(info.value)


async def test_refusal_is_told_in_the_clusters_words(tmp_path: Path) -> None:
    """A quota, for one; and nothing is left of the try."""
    async with open_setting(tmp_path) as setting:
        setting.server.cluster.refuses.append(KubeError(403, "Forbidden", "exceeded quota: two pods are enough"))
        with pytest.raises(EngineError) as info:
            async with setting.job():
                raise AssertionError

    assert "Kubernetes refuses the pod: 403 Forbidden: exceeded quota: two pods are enough" == str(info.value)


async def test_request_that_nobody_answered_makes_no_second_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secret and pod are made, the answers are lost: the session says so, and there is one pod all the same."""
    monkeypatch.setattr("kallichore.engines.kubernetes_api.PATIENCE", 0.5)
    async with open_setting(tmp_path) as setting:
        setting.server.cluster.drops_answers = 2
        async with setting.job() as job, setting.link(job):
            made = list(setting.server.cluster.made)

    assert [job.pod] == made
    assert any("does not answer: not within 0.5 s" in reason for reason in setting.reasons)


async def test_watch_that_is_too_old_is_begun_anew(tmp_path: Path) -> None:
    """410 Gone: the pods are listed again, and what happened meanwhile is known."""
    async with open_setting(tmp_path) as setting, setting.job(memory="900Gi") as job:
        cluster = setting.server.cluster
        await until(lambda: cluster.watches)
        cluster.forget_history()
        await until(lambda: cluster.lists > 1 and cluster.watches > 1)
        cluster.delete("pods", job.pod, {})
        with pytest.raises(HostGoneError, match="was deleted"):
            await job.connect()


async def test_cluster_that_is_silent_is_no_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of pods then, and their kernels compute on; a new one waits, and says for what."""
    monkeypatch.setattr("kallichore.engines.kubernetes_api.PATIENCE", 0.3)
    async with open_setting(tmp_path) as setting, setting.job() as job, setting.link(job) as link:
        await connect_all(link)
        setting.server.cluster.is_silent = True
        async with trio.open_nursery() as nursery:

            async def begin_another() -> None:
                async with setting.job() as other, setting.link(other):
                    nursery.cancel_scope.cancel()

            nursery.start_soon(begin_another)
            await until(lambda: any("does not answer" in reason for reason in setting.reasons))
            link.send(SHELL, b"still here")
            came = await read(link, SHELL, len(b"still here"))
            setting.server.cluster.is_silent = False

    assert b"still here" == came


async def test_pod_without_memory_says_so_with_its_limit(tmp_path: Path) -> None:
    """Its host can tell nothing any more; the cluster does."""
    async with open_setting(tmp_path) as setting, setting.job(memory="2Gi") as job, setting.link(job) as link:
        setting.server.cluster.kill_for_memory(job.pod)
        await link.lost.wait()
        why, said = await job.explain(None), link.why_lost

    assert "ran out of memory, of which it may have 2Gi" == why
    assert f"its pod {job.pod} ran out of memory" in str(said)


async def test_pod_that_somebody_deletes_says_so(tmp_path: Path) -> None:
    """The kernel is ended, its host tells how, and the cluster why."""
    async with open_setting(tmp_path) as setting, setting.job() as job, setting.link(job) as link:
        setting.server.cluster.delete("pods", job.pod, {"gracePeriodSeconds": 5})
        await link.ended.wait()
        await until(lambda: job.state is not None and job.state.reason)
        why = await job.explain(Ending(1, -1, "SIGTERM"))

    assert "was deleted" == why


async def test_kernels_own_end_needs_no_explanation(tmp_path: Path) -> None:
    """Where the host told how its kernel ended, an exit code of the pod adds nothing."""
    async with open_setting(tmp_path) as setting, setting.job() as job, setting.link(job) as link:
        await connect_all(link)
        tell(link, "exit 7")
        await link.ended.wait()
        code = link.ending.code if link.ending is not None else None
        link.release()
        link.flush()
        await until(lambda: not setting.server.cluster.processes)
        why = await job.explain(Ending(1, 7))

    assert (7, "") == (code, why)


async def test_next_server_finds_the_pod_again(tmp_path: Path) -> None:
    """With the same ticket the host calls whoever waits for it, and the kernel is the same."""
    async with open_setting(tmp_path) as setting:
        order = setting.order()
        ticket = setting.engine.ticket(order)
        async with setting.engine.open_job(order, ticket, setting.told.append, is_new=True) as job:
            async with setting.link(job, is_left=True) as link:
                pid = link.hello.pid
        async with setting.job(ticket, is_new=False) as job, setting.link(job) as link:
            again = link.hello.pid

    assert pid == again
    assert 1 == len(setting.server.cluster.made)


async def test_pod_that_is_not_found_again_is_gone(tmp_path: Path) -> None:
    """One that somebody has removed meanwhile is told as that."""
    async with open_setting(tmp_path) as setting:
        async with setting.job(setting.engine.ticket(setting.order()), is_new=False) as job:
            with pytest.raises(HostGoneError, match="is not there any more"):
                await job.connect()


async def test_what_nobody_claims_is_swept(tmp_path: Path) -> None:
    """A pod of this owner that no session has is ended, with its Secret; another server's stays."""
    async with open_setting(tmp_path) as setting:
        order = setting.order()
        async with setting.job() as kept:
            async with setting.engine.open_job(order, setting.engine.ticket(order), setting.told.append, is_new=True):
                pass
            cluster = setting.server.cluster
            foreign = {"metadata": {"name": "foreign", "labels": labels_of("another", "x")}, "data": {}}
            cluster.create("secrets", foreign, is_tried=False)
            await kept.cluster.sweep_once(is_full=True)
            await until(lambda: len(cluster.items["pods"]) == 1)
            left = set(cluster.items["secrets"])
            del cluster.items["secrets"]["foreign"]

    assert {kept.pod, "foreign"} == left


@pytest.mark.parametrize(
    ("finished", "is_left"), [("2000-01-01T00:00:00Z", False), ("2999-01-01T00:00:00Z", True), (None, True)]
)
async def test_pod_that_ended_long_ago_is_removed_whosever_it_is(
    tmp_path: Path, finished: str | None, is_left: bool
) -> None:
    """Its server had a day to come back; one that ended lately, or runs, stays."""
    async with open_setting(tmp_path) as setting, setting.job(memory="900Gi") as job:
        pods = setting.server.cluster.items["pods"]
        state = {"running": {}} if finished is None else {"terminated": {"exitCode": 0, "finishedAt": finished}}
        metadata = {"name": "foreign", "labels": labels_of("another", "x")}
        pods["foreign"] = {"metadata": metadata, "spec": {}, "status": {"containerStatuses": [{"state": state}]}}
        await job.cluster.sweep_once(is_full=True)
        names = set(pods)
        pods.pop("foreign", None)

    assert ({job.pod, "foreign"} if is_left else {job.pod}) == names


async def test_start_that_is_cancelled_leaves_no_pod(tmp_path: Path) -> None:
    """Cancelled while the answer is awaited, it is ended as soon as the cluster answers."""
    async with open_setting(tmp_path) as setting:
        setting.server.cluster.drops_answers = 1
        with trio.move_on_after(1) as scope:
            async with setting.job():
                raise AssertionError
        made = len(setting.server.cluster.items["secrets"])

    assert (True, 1) == (scope.cancelled_caught, made)


async def test_profile_is_checked_by_the_cluster_itself(tmp_path: Path) -> None:
    """What is wrong with it is told in sentences; one that can be used has none, and nothing is made of it."""
    async with open_setting(tmp_path) as setting:
        good = await setting.engine.check(setting.order().options)
        setting.server.cluster.refuses.append(KubeError(403, "Forbidden", "no pods for you"))
        refused = await setting.engine.check(setting.order().options)
        unreadable = await setting.engine.check({"image": IMAGE, "kubeconfig": str(tmp_path / "none")})
        unknown = await setting.engine.check({"images": IMAGE})

    assert ([], ["Kubernetes refuses such a pod: 403 Forbidden: no pods for you"]) == (good, refused)
    assert "cannot be read" in unreadable[0]
    assert "engine.images is not known" in unknown[0]


async def test_token_that_was_changed_is_read_again(tmp_path: Path) -> None:
    """Tokens in files change from time to time: a refusal has it read again, and asks once more."""
    async with open_setting(tmp_path) as setting:
        file = tmp_path / "token"
        file.write_text(setting.server.cluster.token)
        kubeconfig = setting.server.kubeconfig
        kubeconfig.write_text(kubeconfig.read_text().replace('"token": "a token"', f'"tokenFile": "{file}"'))
        good = await setting.engine.check(setting.order().options)
        setting.server.cluster.token = "another"
        file.write_text("another")
        again = await setting.engine.check(setting.order().options)

    assert ([], []) == (good, again)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, None),
        ({"user": {"client-certificate-data": None, "client-key-data": None}}, "does not answer"),
        ({"cluster": {"certificate-authority-data": None}}, "certificate verify failed"),
        ({"cluster": {"certificate-authority-data": None, "insecure-skip-tls-verify": True}}, None),
    ],
)
async def test_cluster_and_server_show_each_other_their_certificates(
    tmp_path: Path, change: dict[str, Any], complaint: str | None
) -> None:
    """The API's is looked at, unless the kubeconfig says otherwise, and ours is shown."""
    (tmp_path / "pods").mkdir()
    desk: Any = None
    services = EngineServices(tmp_path, OWNER, lambda: desk)
    certificates = make_server_certificate(), make_certificate()
    async with open_kube_server(tmp_path / "pods", *certificates) as server, open_engine(services) as engine:
        kubeconfig = json.loads(server.kubeconfig.read_text())
        for part, members in change.items():
            kubeconfig[f"{part}s"][0][part].update(members)
        server.kubeconfig.write_text(json.dumps(kubeconfig))
        with trio.fail_after(PATIENCE):
            problems = await engine.check({"kubeconfig": str(server.kubeconfig), "image": IMAGE})

    assert complaint is None or complaint in problems[0]
    assert (complaint is None) == (list(problems) == [])


async def test_one_watch_is_for_all_pods(tmp_path: Path) -> None:
    """Ten sessions ask for no more than one."""
    async with open_setting(tmp_path) as setting, AsyncExitStack() as stack:
        jobs = [await stack.enter_async_context(setting.job(memory="900Gi")) for _ in range(10)]
        await until(lambda: all(job.state is not None and "Unschedulable" in job.state.reason for job in jobs))
        asked = setting.server.cluster.lists, setting.server.cluster.watches

    assert (1, 1) == asked


async def test_session_in_a_pod_is_one_like_any_other(tmp_path: Path) -> None:
    """ipykernel in a pod, by a profile: it runs code, is interrupted, is restarted in the same pod, and says why it
    ended where somebody has removed that.
    """
    (tmp_path / "pods").mkdir()
    async with open_kube_server(tmp_path / "pods") as kube:
        profile = {"kind": "kubernetes", "kubeconfig": str(kube.kubeconfig), "image": IMAGE, "python": PYTHON}
        config = ServerConfig(token=None, listen_hosts="127.0.0.1:0", profiles={"pods": profile})
        request = NewSession(
            session_id="s", argv=ipykernel_argv(), engine={"profile": "pods"}, interrupt_mode=InterruptMode.SIGNAL
        )
        with trio.fail_after(2 * REAL_TIME):
            async with open_server(config) as server:
                session = server.create_session(request)
                await session.start()
                result = await session.run("print(6 * 7)")
                interrupted: list[Any] = []

                async def loop() -> None:
                    interrupted.append(await session.run("import time\nwhile True: time.sleep(0.01)"))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(loop)
                    await until(lambda: session.status is Status.BUSY)
                    session.interrupt()
                await session.restart()
                again = await session.run("print(7 * 6)")
                kube.cluster.delete("pods", kube.cluster.made[-1], {"gracePeriodSeconds": 8})
                await session.wait_ended()
                report = session.conversation.last_exit
            await until_empty(kube)

    assert ("42\n", "42\n", 1) == (result.text, again.text, len(kube.cluster.made))
    assert "KeyboardInterrupt" == interrupted[0].error.name
    assert report is not None
    assert "was deleted" in report.text
