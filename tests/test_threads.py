"""Work shared out to threads: order, bounds and memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from srgan_infer.threads import Room, map_in_order


def test_room_lets_in_what_fits_and_one_that_is_too_large_alone() -> None:
    room = Room(100)
    inside: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def work(size: int) -> None:
        with room.take(size):
            with lock:
                inside.append(size)
                most.append(sum(inside) if len(inside) > 1 else 0)
            with lock:
                inside.remove(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in (30, 60, 500, 40) * 25]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not inside
    assert len(most) == 100
    assert max(most) <= 100


def test_room_waits_until_there_is_some() -> None:
    room = Room(100)
    entered = threading.Event()

    def second() -> None:
        with room.take(50):
            entered.set()

    with room.take(60):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(30)
    thread.join(30)


def test_results_come_in_order_whoever_is_done_first() -> None:
    later = threading.Event()

    def function(number: int) -> int:
        if number == 0:
            later.wait(30)
        elif number == 1:
            later.set()
        return number * number

    assert list(map_in_order(function, range(20), 3)) == [n * n for n in range(20)]


def test_items_are_taken_as_results_are() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_in_order(lambda number: number, items(), 2)
    for count in range(1, 20):
        next(results)
        assert len(taken) <= count + 2
    results.close()
