"""Tokenizers of every kind, trained once on a little code and text in many scripts."""

import sysconfig
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

SCRIPTS = [
    "Dvě řeky, tři břehy a žluťoučký kůň.", "Быстрая лиса прыгает через ленивую собаку.", "素早い茶色の狐は怠け者の犬を飛び越える。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다.", "तेज़ भूरी लोमड़ी आलसी कुत्ते पर कूदती है।", "الثعلب البني السريع يقفز فوق الكلب الكسول.",
    "😀👩‍👩‍👧‍👦 🇩🇪 e\u0301 ½ ² Ⅷ ٣٤ 12345", "\t\ttabs \u3000 wide\u00a0space\u2028line\x85next",
]


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    library = Path(sysconfig.get_path("stdlib"))
    modules = [library / f"{name}.py" for name in ("argparse", "ast", "dataclasses", "inspect", "typing", "tarfile")]
    return [path.read_text(encoding="utf-8") for path in modules] + SCRIPTS * 30


@pytest.fixture(scope="session")
def trained(corpus) -> dict:
    from llmwright.tokens.train import KINDS, train

    return {kind: train(corpus, kind, 2000) for kind in KINDS}


@pytest.fixture(scope="session")
def shared():
    """shared("gpt2_vocab/vocab.bpe"): that file's path, or a skip."""
    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"needs ../shared/data/{name}, which is not here")
        return SHARED / name
    return find
