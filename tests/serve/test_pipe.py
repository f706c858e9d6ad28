"""What goes between the server and its engine arrives whole and in order, and neither waits for a reader that is not there."""

import asyncio
import socket
import threading

import pytest

from llmwright.serve.pipe import LoopPipe, Pipe, framed

MESSAGES = [("step", [(1, 0, "Größe", [5], (), (), None)], None), "x" * 300_000, b"", ["last"]]


async def until(condition) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


def test_messages_are_whole_however_they_are_cut():
    data = b"".join(framed(message) for message in MESSAGES)
    for size in (1, 7, 4096, len(data)):
        found = []
        pipe = LoopPipe(found.append, lambda: None)
        small = data if size > 7 else b"".join(framed(m) for m in (MESSAGES[0], *MESSAGES[2:]))
        for at in range(0, len(small), size):
            pipe.data_received(small[at : at + size])
        assert found == (MESSAGES if size > 7 else [MESSAGES[0], *MESSAGES[2:]]) and not pipe.come


def test_both_ends_tell_each_other_everything_and_when_one_is_gone():
    async def talk() -> None:
        here, there = socket.socketpair()
        waits, found, gone = Pipe(there), [], []
        loop_end = await LoopPipe.open(here, found.append, lambda: gone.append(True))
        assert not waits.poll(0)
        sending = threading.Thread(target=lambda: [waits.send(message) for message in MESSAGES])
        sending.start()
        await until(lambda: len(found) == len(MESSAGES))
        assert found == MESSAGES
        big = ["y" * 5_000_000] * 2  # far more than the sockets hold, and nobody reads yet
        for message in big:
            loop_end.send(message)
        assert waits.poll(None)
        assert [await asyncio.to_thread(waits.recv) for _ in big] == big
        there.close()
        await until(lambda: gone)
        loop_end.send("to nobody")
        sending.join()

    asyncio.run(talk())


def test_the_end_that_waits_is_told_when_the_other_is_gone():
    here, there = socket.socketpair()
    pipe = Pipe(there)
    here.sendall(framed("all") + framed("half")[:-1])
    here.close()
    assert pipe.recv() == "all"
    with pytest.raises(EOFError):
        pipe.recv()
    there.close()


def test_a_message_that_cannot_be_handled_keeps_no_other_from_arriving():
    async def talk() -> tuple[list, list]:
        found, told = [], []

        def take(message) -> None:
            found.append(1 / message)

        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
        LoopPipe(take, lambda: None).data_received(framed(1) + framed(0) + framed(2))
        return found, told

    found, told = asyncio.run(talk())
    assert found == [1, 0.5] and [type(error) for error in told] == [ZeroDivisionError]
