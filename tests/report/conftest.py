import shutil

import pytest
from fake_run import make_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A whole run directory; read only."""
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy to damage, without the embedding tables: drawing them is most of a report's time."""
    tables = shutil.ignore_patterns("*.safetensors", "corpus")
    return shutil.copytree(finished_run, tmp_path / "demo", ignore=tables)


@pytest.fixture(scope="session")
def report(finished_run):
    """The page of the whole run, written once."""
    from llmwright.report import write_report

    return write_report(finished_run)
