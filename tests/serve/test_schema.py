"""schemathesis reads /openapi.json and tries what a stranger would: whatever comes, it is no failure of the server."""

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def schema(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def check(schema, server, examples: int) -> None:
    tried, statuses = 0, set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
               | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def attempt(case):
            nonlocal tried
            tried += 1
            answer = case.call(base_url=server.url)
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

        attempt()
    assert tried > examples and {200, 400} <= statuses
    server.idle()


def test_no_request_that_can_be_made_up_is_a_failure_of_the_server(schema, server):
    check(schema, server, 12)


@pytest.mark.slow
def test_many_requests_that_can_be_made_up_are_no_failure_of_the_server(schema, server):
    check(schema, server, 300)
