"""docs/families.md says what the tests found (`table.py`). Runs after all tests of this folder (`conftest.py`)."""

import table


def test_the_page_has_every_family_and_check_that_ran():
    problems = table.compare()
    assert not problems, "\n".join([*problems, "LLMWRIGHT_WRITE_DOCS=1 pytest tests/families writes the page"])


def test_a_page_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_described", {"llama": ("Llama", "Touvron 2023", "decoder; rotary"), "gpt2": ("a", "b", "c")})
    monkeypatch.setattr(table, "_records", {"llama": {"logits": 3e-6, "config": 0.0}, "gpt2": {"cache": 1e-9}})
    monkeypatch.setenv("LLMWRIGHT_WRITE_DOCS", "1")
    page = tmp_path / "families.md"
    assert table.compare(page) == []
    assert table._read(page) == (table._described, {"llama": {"logits": "1e-5", "config": "same"}, "gpt2": {"cache": "1e-6"}})


def test_what_did_not_run_stays_and_what_is_new_is_missed(tmp_path, monkeypatch):
    page = tmp_path / "families.md"
    monkeypatch.setattr(table, "_described", {"llama": ("Llama", "Touvron 2023", "decoder; rotary")})
    monkeypatch.setattr(table, "_records", {"llama": {"logits": 3e-6}})
    monkeypatch.setenv("LLMWRIGHT_WRITE_DOCS", "1")
    assert table.compare(page) == []
    monkeypatch.setattr(table, "_records", {"llama": {"cache": 3e-6}, "gpt2": {"logits": 1e-6}})
    assert table.compare(page) == ["gpt2: not described; call table.describe"]
    assert table._read(page)[1]["llama"] == {"logits": "1e-5", "cache": "1e-5"}
    monkeypatch.delenv("LLMWRIGHT_WRITE_DOCS")
    monkeypatch.setattr(table, "_records", {"llama": {"logits": 3e-4, "config": 0.0}})
    assert table.compare(page) == ["llama, logits: the page says 1e-5; measured 3.0e-04", "llama: the page has no 'config'"]
