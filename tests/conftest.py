import os
import shutil
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are faster without a second thread, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file of 4-bit weights (Q4_1), from a package index."""
    return real_model("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as a directory in its publisher's layout, from a package index."""
    return real_model("all-minilm-l6-v2")


def real_model(name: str) -> Path:
    """A published model from a package index, brought once into the user's own cache; skips where there is no network.

    What the user pulled from the hub stays: then the package's files go to a folder of the tests beside it.
    """
    from llmwright.checkpoint import cache
    from llmwright.checkpoint.pull import pull
    from llmwright.errors import WorkError

    record = cache.record(cache.folder(name))
    before = os.environ.get("LLMWRIGHT_CACHE")
    if record and not record["source"].startswith("index"):
        os.environ["LLMWRIGHT_CACHE"] = str(cache.models().parent / "tests")
    try:
        return pull(name, source="index").path
    except WorkError as error:
        pytest.skip(f"needs {name} from a package index, once: {error}")
    finally:
        os.environ.pop("LLMWRIGHT_CACHE", None) if before is None else os.environ.update(LLMWRIGHT_CACHE=before)


CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    """A real Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; name one in CHROMIUM")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()
