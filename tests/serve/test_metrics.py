"""What is counted a step at a time reads as if it had been counted one by one."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from llmwright.serve.metrics import BETWEEN, Between


def test_values_that_come_many_times_read_as_in_prometheus_own_histogram():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made = Between("seconds", "Between tokens.", "m")
    ours.register(made)
    oracle = Histogram("seconds", "Between tokens.", ["model_name"], registry=theirs, buckets=BETWEEN).labels("m")
    for value, count in ((0.0, 1), (0.001, 3), (0.0010001, 2), (0.0625, 32), (2.5, 4), (7.0, 5)):
        made.observe(value, count)
        for _ in range(count):
            oracle.observe(value)

    def lines(registry) -> list[str]:
        return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]

    assert lines(ours) == lines(theirs)
