"""Detached jobs and the compute lock. Workers are stepped by hand; nothing is timed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from blockviz.compute_lock import ComputeLock, steps
from blockviz.errors import BadInput, OverLimit
from blockviz.jobs import Jobs
from blockviz.types import Done, Progress

PATIENCE = 10.0  # seconds before a wait that should be over at once counts as a hang


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Task:
    """A generator of n steps, each released by `step()`; records what became of it."""

    def __init__(self, n_steps: int = 3) -> None:
        self.n_steps = n_steps
        self.may_go = threading.Semaphore(0)
        self.began = threading.Event()
        self.seen = threading.Semaphore(0)
        self.n_done = 0
        self.was_closed = False

    def __call__(self) -> Iterator[Progress | Done]:
        self.began.set()
        try:
            for i in range(self.n_steps):
                assert self.may_go.acquire(timeout=PATIENCE)
                self.n_done = i + 1
                yield Progress("scoring", i + 1, self.n_steps, partial=list(range(i + 1)))
                # Coming back here means that the worker has recorded the event before.
                self.seen.release()
            yield Done("finished")
        finally:
            self.was_closed = True

    def step(self, n: int = 1) -> None:
        for _ in range(n):
            self.may_go.release()
            assert self.seen.acquire(timeout=PATIENCE)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_jobs(clock: Clock) -> Iterator[Callable[..., Jobs]]:
    made: list[Jobs] = []

    def make(**settings: object) -> Jobs:
        made.append(Jobs(clock=clock, **settings))
        return made[-1]

    yield make
    for jobs in made:
        jobs.close(timeout=0.2)


def finish(jobs: Jobs, job_id: str, task: Task) -> None:
    task.may_go.release(task.n_steps)
    assert jobs.wait(job_id, PATIENCE).is_over


def test_a_job_runs_to_its_result(make_jobs, clock):
    jobs, task = make_jobs(), Task()
    job = jobs.submit("score", task, owner="ann")
    task.step(2)
    view = jobs.view(job)
    assert (view.state, view.stage, view.done, view.total) == ("running", "scoring", 2, 3)
    assert view.partial == [0, 1]
    assert view.result is None
    clock.now += 7
    finish(jobs, job, task)
    view = jobs.view(job)
    assert (view.state, view.result, view.error, view.elapsed) == ("done", "finished", "", 7)
    clock.now += 5
    assert jobs.view(job).elapsed == 7, "the time stands still once the job is over"


def test_ids_cannot_be_guessed_and_are_not_logged(make_jobs, caplog):
    caplog.set_level(logging.DEBUG)

    def broken():
        raise KeyError("boom")

    jobs = make_jobs()
    ids = [jobs.submit("score", broken, owner="ann") for _ in range(3)]
    for job in ids:
        jobs.wait(job, PATIENCE)
    assert len(set(ids)) == 3
    assert all(len(job) >= 20 for job in ids)
    assert "boom" in caplog.text
    assert not any(job in caplog.text for job in ids)


def test_heavy_jobs_run_one_at_a_time_in_the_order_they_came(make_jobs):
    jobs, tasks = make_jobs(), [Task() for _ in range(3)]
    ids = [jobs.submit("score", t, owner=f"visitor {i}") for i, t in enumerate(tasks)]
    assert tasks[0].began.wait(PATIENCE)
    assert [jobs.view(j).state for j in ids] == ["running", "queued", "queued"]
    assert [jobs.view(j).queue_position for j in ids] == [0, 1, 2]
    finish(jobs, ids[0], tasks[0])
    assert tasks[1].began.wait(PATIENCE)
    assert not tasks[2].began.is_set()
    assert [jobs.view(j).queue_position for j in ids] == [0, 0, 1]
    finish(jobs, ids[1], tasks[1])
    finish(jobs, ids[2], tasks[2])


def test_a_light_job_does_not_wait_for_a_heavy_one(make_jobs):
    jobs, heavy, light = make_jobs(), Task(), Task()
    jobs.submit("score", heavy, owner="ann")
    quick = jobs.submit("inspect", light, owner="ann", weight="light")
    finish(jobs, quick, light)
    assert jobs.view(quick).state == "done"
    assert heavy.n_done == 0


def test_cancelling_a_running_job_closes_its_generator_and_keeps_the_partial_result(make_jobs):
    jobs, task, follower = make_jobs(), Task(n_steps=9), Task()
    events = task()  # held here, so that nothing but close() can end it
    job = jobs.submit("score", lambda: events, owner="ann")
    after = jobs.submit("score", follower, owner="bob")
    task.step(2)
    assert not jobs.view(job).is_stopping
    jobs.cancel(job)
    assert (jobs.view(job).state, jobs.view(job).is_stopping) == ("running", True)
    task.may_go.release(7)
    view = jobs.wait(job, PATIENCE)
    assert (view.state, view.is_stopping) == ("cancelled", False)
    assert view.partial == [0, 1, 2], "the step under way is still recorded, no other is begun"
    assert task.was_closed
    assert task.n_done == 3
    finish(jobs, after, follower)
    assert jobs.view(after).state == "done"


def test_cancelling_a_queued_job_never_starts_it(make_jobs):
    jobs, task, other = make_jobs(), Task(), Task()
    first = jobs.submit("score", task, owner="ann")
    second = jobs.submit("score", other, owner="bob")
    jobs.cancel(second)
    assert jobs.view(second).state == "cancelled"
    finish(jobs, first, task)
    assert not other.began.is_set()


def test_cancelling_what_is_over_or_unknown_changes_nothing(make_jobs):
    jobs, task = make_jobs(), Task()
    job = jobs.submit("score", task, owner="ann")
    finish(jobs, job, task)
    jobs.cancel(job)
    jobs.cancel("no such job")
    assert jobs.view(job).state == "done"
    assert jobs.view("no such job") is None


def test_a_refusal_is_shown_as_it_is(make_jobs):
    def refuse():
        yield Progress("reading", 1, 2, partial="half")
        raise BadInput("Asked this.", "Found that.", "Do this.")

    jobs = make_jobs()
    view = jobs.wait(jobs.submit("score", refuse, owner="ann"), PATIENCE)
    assert (view.state, view.error) == ("failed", "Asked this. Found that. Do this.")
    assert view.partial == "half"


def test_any_other_failure_shows_one_neutral_sentence_and_logs_the_rest(make_jobs, caplog):
    def broken():
        yield Progress("reading", 1, 2)
        raise ZeroDivisionError("secret detail")

    jobs = make_jobs()
    view = jobs.wait(jobs.submit("score", broken, owner="ann"), PATIENCE)
    ref = view.error.removeprefix("Something went wrong (ref ")[:4]
    assert view.error == f"Something went wrong (ref {ref}). Nothing was lost."
    assert f"ref {ref}" in caplog.text
    assert "secret detail" in caplog.text


class Panic(BaseException):
    """As a library written in Rust ends in: no Exception."""


@pytest.mark.parametrize(
    ("end", "place", "weight"),
    [
        *((Panic, place, "heavy") for place in ("start", "step", "close")),
        *((end, "step", "heavy") for end in (SystemExit, MemoryError, GeneratorExit)),
        (GeneratorExit, "close", "heavy"),
        (Panic, "step", "light"),
    ],
)
def test_whatever_ends_a_job_says_so_and_frees_its_place(make_jobs, caplog, end, place, weight):
    def steps():
        try:
            yield Progress("reading", 1, 2, partial="half")
            if place == "step":
                raise end("secret detail")
            yield Done(None)
        finally:
            if place == "close":
                raise end("secret detail")

    def start():
        if place == "start":
            raise end("secret detail")
        return steps()

    jobs, after = make_jobs(is_one_per_owner=True), Task()
    job = jobs.submit("score", start, owner="ann", weight=weight)
    view = jobs.wait(job, PATIENCE)
    if (end, place) == (GeneratorExit, "close"):
        assert view.is_over, "what a close always ends in"
    else:
        assert (view.state, view.result) == ("failed", None)
        assert view.error.startswith("Something went wrong (ref ") and "secret" in caplog.text
    jobs.cancel(job)
    again = jobs.submit("score", after, owner="ann", weight=weight)
    finish(jobs, again, after)
    assert jobs.view(again).state == "done"


def test_a_worker_that_cannot_begin_fails_its_job_alone(make_jobs, monkeypatch):
    jobs, task = make_jobs(), Task()

    def begin(thread):
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", begin)
    view = jobs.view(jobs.submit("score", Task(), owner="ann"))
    assert view.state == "failed" and "Something went wrong" in view.error
    job = jobs.submit("score", task, owner="ann")
    finish(jobs, job, task)
    assert jobs.view(job).state == "done"


@pytest.mark.parametrize("look", ["view", "cancel", "submit"])
def test_a_worker_that_dies_without_a_word_is_replaced(make_jobs, monkeypatch, look):
    jobs, task, other = make_jobs(), Task(), Task()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_work", lambda job: None)
        dead = jobs.submit("score", Task(), owner="ann")
        jobs._jobs[dead].thread.join(PATIENCE)
    waiting = jobs.submit("score", task, owner="bob") if look == "submit" else None
    getattr(jobs, look)(dead) if look != "submit" else None
    view = jobs.view(dead)
    assert (view.state, view.is_over) == ("failed", True) and "Start it again." in view.error
    last = waiting or jobs.submit("score", other, owner="bob")
    finish(jobs, last, task if waiting else other)
    assert jobs.view(last).state == "done"


def test_a_task_that_ends_without_a_result_has_failed(make_jobs):
    def silent():
        yield Progress("reading", 1, 1)

    jobs = make_jobs()
    assert jobs.wait(jobs.submit("score", silent, owner="ann"), PATIENCE).state == "failed"


def test_the_queue_has_an_end(make_jobs):
    jobs, task = make_jobs(max_waiting=2), Task()
    jobs.submit("score", task, owner="ann")
    jobs.submit("score", Task(), owner="ann")
    jobs.submit("score", Task(), owner="ann")
    with pytest.raises(OverLimit) as refusal:
        jobs.submit("score", Task(), owner="ann")
    assert "2 tasks are waiting already" in refusal.value.found
    assert refusal.value.asked and refusal.value.todo


def test_one_heavy_job_per_owner_where_asked(make_jobs):
    jobs, task = make_jobs(is_one_per_owner=True), Task()
    job = jobs.submit("score", task, owner="ann")
    with pytest.raises(OverLimit, match="one at a time"):
        jobs.submit("score", Task(), owner="ann")
    light, other = Task(), Task()
    finish(jobs, jobs.submit("inspect", light, owner="ann", weight="light"), light)
    jobs.submit("score", other, owner="bob")
    finish(jobs, job, task)
    jobs.submit("score", Task(), owner="ann")


def test_addresses_take_turns(make_jobs):
    """Who has asked for ten long tasks waits for his second until everybody had a first."""
    jobs, first = make_jobs(), Task()
    ids = {"a0": jobs.submit("score", first, owner="x", address="a")}
    tasks = {name: Task() for name in ("a1", "a2", "b1", "a3", "c1", "b2")}
    for name, task in tasks.items():
        ids[name] = jobs.submit("score", task, owner=name, address=name[0])
    order = ["b1", "c1", "a1", "b2", "a2", "a3"]
    assert [jobs.view(ids[name]).queue_position for name in order] == [1, 2, 3, 4, 5, 6]
    finish(jobs, ids["a0"], first)
    for name in order:
        assert tasks[name].began.wait(PATIENCE)
        assert [jobs.view(ids[n]).state for n in order if not tasks[n].began.is_set()] == (
            ["queued"] * (5 - order.index(name))
        )
        finish(jobs, ids[name], tasks[name])


def test_one_address_has_half_the_line_at_most(make_jobs):
    jobs = make_jobs(max_waiting=4)
    jobs.submit("score", Task(), owner="first", address="a")
    for n in range(2):
        jobs.submit("score", Task(), owner=str(n), address="a")
    with pytest.raises(OverLimit, match="2 tasks from your address are waiting already"):
        jobs.submit("score", Task(), owner="other", address="a")
    assert jobs.view(jobs.submit("score", Task(), owner="bob", address="b")).queue_position == 1


def test_a_job_that_nobody_ever_looks_at_is_dropped(make_jobs, clock):
    """A caller who never opens a page never leaves one."""
    jobs, task = make_jobs(orphan_seconds=60), Task()
    everybodys = jobs.submit("load", task, owner="")
    unseen, seen = (jobs.submit("score", Task(), owner=name, address=name) for name in "ab")
    clock.now += 179
    assert jobs.view(seen).state == "queued"
    clock.now += 1
    assert jobs.view(everybodys).state == "running"
    assert (jobs.view(unseen).state, jobs.view(seen).state) == ("cancelled", "queued")
    finish(jobs, everybodys, task)


def test_a_finished_job_is_kept_half_an_hour_and_then_known_to_have_expired(make_jobs, clock):
    jobs, task = make_jobs(), Task()
    job = jobs.submit("score", task, owner="ann")
    finish(jobs, job, task)
    clock.now += 30 * 60 - 1
    assert jobs.view(job).result == "finished"
    clock.now += 1
    view = jobs.view(job)
    assert (view.state, view.kind, view.result, view.partial) == ("expired", "score", None, None)
    assert view.is_over


def test_a_running_job_never_expires(make_jobs, clock):
    jobs, task = make_jobs(), Task()
    job = jobs.submit("score", task, owner="ann")
    clock.now += 1e6
    assert jobs.view(job).state == "running"
    finish(jobs, job, task)


def test_the_estimate_is_the_rate_of_the_current_stage(make_jobs, clock):
    """1 of 10 at 0 s, 3 of 10 at 8 s: 4 s a step, 7 steps left, 28 s; 26 s two seconds later."""
    begin, middle = threading.Semaphore(0), threading.Semaphore(0)
    reached = threading.Semaphore(0)

    def task():
        yield Progress("loading", 99, 100)
        yield Progress("scoring", 1, 10)
        reached.release()
        begin.acquire(timeout=PATIENCE)
        yield Progress("scoring", 3, 10)
        reached.release()
        middle.acquire(timeout=PATIENCE)
        yield Done(None)

    jobs = make_jobs()
    job = jobs.submit("score", task, owner="ann")
    assert reached.acquire(timeout=PATIENCE)
    assert jobs.view(job).eta is None, "one event has no rate"
    clock.now += 8
    begin.release()
    assert reached.acquire(timeout=PATIENCE)
    assert jobs.view(job).eta == pytest.approx(28)
    clock.now += 2
    assert jobs.view(job).eta == pytest.approx(26)
    clock.now += 27
    assert jobs.view(job).eta is None, "a guess that has passed is no guess"
    middle.release()
    assert jobs.wait(job, PATIENCE).eta is None


def test_a_visitor_who_leaves_and_comes_back_keeps_the_job(make_jobs, clock):
    jobs, task = make_jobs(orphan_seconds=60), Task()
    job = jobs.submit("score", task, owner="ann")
    jobs.forget("ann")
    clock.now += 59
    assert jobs.view(job).state == "running"
    clock.now += 59
    assert jobs.view(job).state == "running", "having been looked at, it is nobody's orphan"
    task.step()
    finish(jobs, job, task)
    assert jobs.view(job).state == "done"


def test_a_job_nobody_looks_at_any_more_is_cancelled(make_jobs, clock):
    jobs, task, waiting = make_jobs(orphan_seconds=60), Task(), Task()
    jobs.submit("score", task, owner="bob")
    orphan = jobs.submit("score", waiting, owner="ann")
    jobs.forget("ann")
    clock.now += 60
    jobs.forget("somebody else")
    assert jobs.view(orphan).state == "cancelled"


def test_without_a_limit_a_job_outlives_its_visitor(make_jobs, clock):
    jobs, task = make_jobs(), Task()
    job = jobs.submit("score", task, owner="ann")
    jobs.forget("ann")
    clock.now += 1e6
    jobs.forget("ann")
    finish(jobs, job, task)
    assert jobs.view(job).state == "done"


def test_close_stops_what_runs_and_what_waits(make_jobs):
    jobs, task, other = make_jobs(), Task(), Task()
    first = jobs.submit("score", task, owner="ann")
    second = jobs.submit("score", other, owner="bob")
    assert task.began.wait(PATIENCE)
    task.may_go.release()
    jobs.close(PATIENCE)
    assert [jobs.view(j).state for j in (first, second)] == ["cancelled", "cancelled"]
    assert task.was_closed and not other.began.is_set()


# -- the compute lock --


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("nothing happened")


class Crowd:
    """Threads that each enter the lock once and write their name down."""

    def __init__(self, lock: ComputeLock) -> None:
        self.lock, self.order, self.threads = lock, [], []

    def add(self, name: str, turn: Callable) -> None:
        def enter() -> None:
            with turn():
                self.order.append(name)

        n_waiting = self.lock.n_waiting
        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        self.threads.append(thread)
        wait_until(lambda: self.lock.n_waiting == n_waiting + 1)

    def join(self) -> list[str]:
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        return self.order


def test_light_users_go_before_heavy_ones_and_each_kind_in_order():
    lock = ComputeLock()
    crowd = Crowd(lock)
    with lock.heavy():
        crowd.add("heavy 1", lock.heavy)
        crowd.add("light 1", lock.light)
        crowd.add("heavy 2", lock.heavy)
        crowd.add("light 2", lock.light)
    assert crowd.join() == ["light 1", "light 2", "heavy 1", "heavy 2"]


def test_what_is_read_as_it_comes_stands_between_the_two():
    lock = ComputeLock()
    crowd = Crowd(lock)
    with lock.heavy():
        crowd.add("heavy", lock.heavy)
        crowd.add("text 1", lock.patient)
        crowd.add("text 2", lock.patient)
        crowd.add("light", lock.light)
        assert lock.n_waiting == 4
    assert crowd.join() == ["light", "text 1", "text 2", "heavy"]


def test_give_way_lets_light_users_in_and_keeps_the_place_before_heavy_ones():
    lock = ComputeLock()
    crowd = Crowd(lock)
    with lock.heavy():
        lock.give_way()
        crowd.add("other heavy", lock.heavy)
        crowd.add("text", lock.patient)
        crowd.add("light", lock.light)
        lock.give_way()
        crowd.order.append("the holder again")
    assert crowd.join() == ["light", "text", "the holder again", "other heavy"]


def test_give_way_without_holding_is_a_bug():
    with pytest.raises(RuntimeError, match="holder"):
        ComputeLock().give_way()


def test_the_lock_is_free_again_after_an_exception():
    lock = ComputeLock()
    for turn in (lock.light, lock.heavy):
        with pytest.raises(ZeroDivisionError), turn():
            raise ZeroDivisionError
    with lock.light():
        pass


def is_free(lock: ComputeLock, *, patience: float = PATIENCE) -> bool:
    """Whether somebody else can take the lock; a short patience will do where it must not be."""
    taken = threading.Event()

    def take() -> None:
        with lock.light():
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    return taken.wait(patience)


def test_steps_hold_the_lock_inside_and_free_it_between():
    lock, inside = ComputeLock(), []

    def task():
        try:
            inside.append(is_free(lock, patience=0.1))
            yield Progress("a", 1, 1)
            inside.append(is_free(lock, patience=0.1))
            yield Done(5)
        finally:
            inside.append(is_free(lock, patience=0.1))

    events = steps(task(), lock)
    assert next(events) == Progress("a", 1, 1)
    wait_until(lambda: lock.n_waiting == 0)
    assert is_free(lock)
    assert list(events) == [Done(5)]
    wait_until(lambda: lock.n_waiting == 0)
    assert inside == [False, False, False]
    assert is_free(lock)


def test_a_light_user_gets_in_between_two_steps_of_a_heavy_job():
    lock, order = ComputeLock(), []
    crowd = Crowd(lock)
    crowd.order = order

    def task():
        for i in range(3):
            order.append(f"step {i}")
            if i == 0:
                crowd.add("light", lock.light)
            yield Progress("a", i, 3)
        yield Done(None)

    for event in steps(task(), lock):
        if isinstance(event, Progress) and event.done == 0:
            crowd.join()
    assert order == ["step 0", "light", "step 1", "step 2"]


def test_whoever_asks_the_steps_are_done_by_one_thread_and_errors_come_back():
    lock, seen = ComputeLock(), []

    def task(fails):
        try:
            seen.append(threading.current_thread())
            yield Progress("a", 1, 1)
            if fails:
                raise BadInput("Something was asked.", "It cannot be.", "Ask otherwise.")
            yield Done(None)
        finally:
            seen.append(threading.current_thread())

    with pytest.raises(BadInput, match="cannot be"):
        list(steps(task(fails=True), lock))
    for events in (steps(task(fails=False), lock), steps(task(fails=False), lock, weight="light")):
        asking = threading.Thread(target=list, args=[events])
        asking.start()
        asking.join()
    closed = steps(task(fails=False), lock)
    next(closed)
    closed.close()
    assert len(seen) == 8 and len(set(seen)) == 1
    assert threading.current_thread() not in seen


def test_closing_steps_closes_the_task_under_the_lock():
    lock, ended = ComputeLock(), []

    def task():
        try:
            yield Progress("a", 1, 2)
            yield Progress("a", 2, 2)
        finally:
            ended.append(is_free(lock, patience=0.1))

    events = steps(task(), lock)
    next(events)
    events.close()
    assert ended == [False]
    wait_until(lambda: lock.n_waiting == 0)
    assert is_free(lock)


def test_a_failing_task_leaves_the_lock_free():
    lock = ComputeLock()

    def task():
        yield Progress("a", 1, 2)
        raise ZeroDivisionError

    events = steps(task(), lock)
    next(events)
    with pytest.raises(ZeroDivisionError):
        next(events)
    assert is_free(lock)
