import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("httpx", reason="needs httpx")
from page_stub import page, stub  # noqa: F401  fixtures
from server_case import Server, save_model


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("served") / "small")


@pytest.fixture(scope="session")
def server(small_model):
    """One for all tests that leave it as they found it."""
    made = Server(small_model)
    yield made
    made.close()
    defects = [line for line in made.log() if line["event"] == "defect"]
    assert not defects, defects
