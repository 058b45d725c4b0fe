"""The broker between clients and worker groups, without Ray: plain asyncio, bounded waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from attnfd_ray.runtime.jobs.broker import Broker
from attnfd_ray.runtime.jobs.failure_policy import POLICIES
from attnfd_ray.runtime.jobs.messages import Event, Job

MAX_LOSSES = POLICIES["WORKER_LOST"].tries or 0
SOON_S = 0.05  # long enough for all other coroutines of the test to run


def job(trial_id: str = "t1") -> Job:
    return Job(kind="train", trial_id=trial_id, role="trial", settings_json="{}")


def epoch(number: int) -> Event:
    return Event(kind="epoch", metrics={"epoch": number})


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=10))


def test_a_group_gets_the_jobs_in_the_order_they_came() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        for name in ("a", "b"):
            await broker.submit(job(name))
        first = await broker.take(0, timeout_s=1)
        await broker.push(0, "a", Event(kind="done"))
        assert [first, await broker.take(0, timeout_s=1)] == [job("a"), job("b")]

    run(test())


def test_a_group_without_work_is_idle_and_ends_when_the_broker_closes() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        assert await broker.take(0, timeout_s=0.01) == "idle"
        waiting = asyncio.create_task(broker.take(0, timeout_s=5))
        await asyncio.sleep(SOON_S)
        await broker.close()
        assert await waiting == "over"

    run(test())


def test_a_push_waits_until_its_client_comes_back_for_the_next_event() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        push = asyncio.create_task(broker.push(0, "t1", epoch(1)))
        assert (await broker.pull("t1", last_epoch=0)).metrics == {"epoch": 1}
        await asyncio.sleep(SOON_S)
        assert not push.done()
        pull = asyncio.create_task(broker.pull("t1", last_epoch=1))
        assert await push is None
        await broker.push(0, "t1", Event(kind="done"))
        assert (await pull).kind == "done"

    run(test())


def test_a_cancelled_job_gets_the_reason_after_its_running_epoch() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        push = asyncio.create_task(broker.push(0, "t1", epoch(1)))
        await broker.pull("t1", last_epoch=0)
        await broker.cancel("t1", "below the cut-off")
        await broker.cancel("t1", "stopped by Ray Tune")
        assert await push == "below the cut-off"

    run(test())


def test_a_job_cancelled_before_its_turn_is_never_handed_out() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        await broker.cancel("a", "no longer wanted")
        assert await broker.take(0, timeout_s=1) == job("b")

    run(test())


def test_a_restarted_client_gets_the_same_event_again() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        push = asyncio.create_task(broker.push(0, "t1", epoch(1)))
        await broker.pull("t1", last_epoch=0)
        await broker.submit(job())
        assert (await broker.pull("t1", last_epoch=0)).metrics == {"epoch": 1}
        assert await broker.take(1, timeout_s=0.01) == "idle"
        push.cancel()

    run(test())


def test_an_epoch_trained_twice_is_reported_once() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        pull = asyncio.create_task(broker.pull("t1", last_epoch=2))
        assert await broker.push(0, "t1", epoch(2)) is None
        push = asyncio.create_task(broker.push(0, "t1", epoch(3)))
        assert (await pull).metrics == {"epoch": 3}
        push.cancel()

    run(test())


def test_a_rebuilt_group_gets_its_job_back_and_gives_it_up_after_too_many_losses() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        for _ in range(MAX_LOSSES):
            assert await broker.take(0, timeout_s=1) == job()
        assert await broker.take(0, timeout_s=0.01) == "idle"
        event = await broker.pull("t1", last_epoch=0)
        assert (event.kind, event.failure_kind) == ("failed", "WORKER_LOST")
        assert (
            event.failure_text == f"its workers died {MAX_LOSSES} times without finishing an epoch"
        )

    run(test())


def test_a_job_that_hung_is_started_once_more_with_its_step_time_and_then_given_up() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        await broker.report_hang(0, "t1", "step 7 hangs", step_s=0.5)
        again = await broker.take(0, timeout_s=1)
        assert again == replace(job(), step_s=0.5)
        await broker.report_hang(0, "t1", "step 7 hangs again", step_s=0.5)
        assert await broker.take(0, timeout_s=0.01) == "idle"
        event = await broker.pull("t1", last_epoch=0)
        assert event.failed_with == ("TIMEOUT", "step 7 hangs again")

    run(test())


def test_a_hang_does_not_count_as_a_lost_worker_and_one_of_another_job_is_ignored() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        await broker.report_hang(0, "t0", "a job before", step_s=0.5)
        for _ in range(MAX_LOSSES - 1):
            assert await broker.take(0, timeout_s=1) == job()
        await broker.report_hang(0, "t1", "step 7 hangs", step_s=0.5)
        assert await broker.take(0, timeout_s=1) == replace(job(), step_s=0.5)

    run(test())


def test_an_epoch_between_two_losses_makes_the_first_one_forgotten() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        pull = asyncio.create_task(broker.pull("t1", last_epoch=10))
        await broker.take(0, timeout_s=1)
        for number in range(1, 2 * MAX_LOSSES):
            await broker.push(0, "t1", epoch(number))
            assert await broker.take(0, timeout_s=1) == job()
        assert not pull.done()
        pull.cancel()

    run(test())


def test_a_lost_node_does_not_count_against_a_job() -> None:
    async def test() -> None:
        alive = {"n0", "n1", "n2"}
        broker = Broker(groups=1, alive=lambda: alive)
        await broker.submit(job())
        for lost in range(2 * MAX_LOSSES):
            assert (
                await broker.take(0, logs={"n0": "logs", f"n{lost + 1}": "logs"}, timeout_s=1)
                == job()
            )
            alive.remove(f"n{lost + 1}")
            alive.add(f"n{lost + 2}")
        for _ in range(MAX_LOSSES):  # the first of these is after a lost node, too
            assert await broker.take(0, logs={"n0": "here:/logs"}, timeout_s=1) == job()
        assert await broker.take(0, logs={"n0": "here:/logs"}, timeout_s=0.01) == "idle"
        text = (await broker.pull("t1", last_epoch=0)).failure_text
        assert (
            text == f"its workers died {MAX_LOSSES} times without finishing an epoch; their logs: "
            "here:/logs"
        )

    run(test())


def test_a_late_event_of_an_old_job_does_not_lose_the_new_one() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        for name in ("a", "b"):
            await broker.submit(job(name))
        await broker.take(0, timeout_s=1)
        await broker.push(0, "a", Event(kind="failed"))
        await broker.take(0, timeout_s=1)
        await broker.push(0, "a", Event(kind="failed"))
        assert await broker.take(0, timeout_s=1) == job("b")

    run(test())


def test_another_group_resumes_a_lost_job_and_with_none_left_all_jobs_fail() -> None:
    async def test() -> None:
        broker = Broker(groups=2)
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        await broker.take(0, timeout_s=1)
        clients = [asyncio.create_task(broker.pull(name, last_epoch=0)) for name in ("a", "b")]
        await broker.report_loss(0, "worker group 0 could not continue")
        await asyncio.sleep(SOON_S)
        assert not any(client.done() for client in clients)
        assert await broker.take(1, timeout_s=1) == job("a")
        await broker.report_loss(1, "worker group 1 could not continue")
        assert [(await client).failure_text for client in clients] == [
            "worker group 1 could not continue"
        ] * 2
        assert await broker.broken() == "worker group 1 could not continue"

    run(test())


def test_a_cancelled_job_is_handed_on_too_so_that_its_end_is_written() -> None:
    async def test() -> None:
        broker = Broker(groups=2)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        await broker.cancel("t1", "below the median")
        await broker.report_loss(0, "worker group 0 could not continue")
        assert await broker.take(1, timeout_s=1) == job()
        assert await broker.push(1, "t1", epoch(1)) == "below the median"

    run(test())


def test_a_job_cancelled_after_an_epoch_that_it_lost_trains_that_again_and_stops_then() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        for number in (1, 2):
            push = asyncio.create_task(broker.push(0, "t1", epoch(number)))
            await broker.pull("t1", last_epoch=number - 1)
            if number == 2:
                await broker.cancel("t1", "below the median at epoch 2")
            else:
                pull = asyncio.create_task(broker.pull("t1", last_epoch=1))
            await push
        pull.cancel()
        assert (
            await broker.take(0, timeout_s=1) == job()
        )  # the group was lost before epoch 2 was saved
        assert await broker.push(0, "t1", epoch(1)) is None
        assert await broker.push(0, "t1", epoch(2)) == "below the median at epoch 2"

    run(test())


def test_a_job_that_dies_after_the_same_epoch_each_time_is_given_up() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        pull = asyncio.create_task(broker.pull("t1", last_epoch=1))
        for _ in range(MAX_LOSSES):
            assert await broker.take(0, timeout_s=1) == job()
            await broker.push(0, "t1", epoch(1))  # and dies before it is saved
        assert await broker.take(0, timeout_s=0.01) == "idle"
        assert (await pull).failure_kind == "WORKER_LOST"

    run(test())


def test_a_group_that_is_lost_after_an_interruption_leaves_no_client_waiting() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        await broker.interrupt()
        await broker.report_loss(0, "worker group 0 could not continue")
        assert await broker.pull("t1", last_epoch=0) == Event.interrupted()

    run(test())


def test_groups_that_end_after_closing_break_nothing() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.close()
        await broker.report_loss(0, "it has ended")
        assert await broker.broken() is None

    run(test())


def test_an_interruption_ends_a_job_after_the_epoch_it_is_in_and_one_not_begun_at_once() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        await broker.take(0, timeout_s=1)
        push = asyncio.create_task(broker.push(0, "a", epoch(1)))
        waiting = asyncio.create_task(broker.pull("b", last_epoch=0))
        await asyncio.sleep(SOON_S)
        await broker.interrupt()
        assert await waiting == Event.interrupted()
        assert (await broker.pull("a", last_epoch=0)).metrics == {"epoch": 1}, "no epoch is lost"
        pull = asyncio.create_task(broker.pull("a", last_epoch=1))
        assert await push == "INTERRUPTED"
        await asyncio.sleep(SOON_S)
        assert not pull.done(), "its checkpoint is being written"
        await broker.push(0, "a", Event.interrupted())
        assert await pull == Event.interrupted()
        assert await broker.take(0, timeout_s=1) == "over"
        await broker.submit(job("c"))
        assert await broker.pull("c", last_epoch=0) == Event.interrupted()

    run(test())


def test_a_job_that_is_to_stop_anyway_stops_for_good_in_an_interruption() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        push = asyncio.create_task(broker.push(0, "t1", epoch(1)))
        await asyncio.sleep(SOON_S)
        await broker.interrupt()
        await broker.cancel("t1", "below the median")
        assert await push == "below the median"

    run(test())


def test_a_job_whose_group_dies_during_an_interruption_is_not_begun_again() -> None:
    async def test() -> None:
        broker = Broker(groups=1)
        await broker.submit(job())
        await broker.take(0, timeout_s=1)
        await broker.interrupt()
        assert await broker.take(0, timeout_s=1) == "over"
        assert await broker.pull("t1", last_epoch=0) == Event.interrupted()

    run(test())
