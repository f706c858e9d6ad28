"""Where keys and values lie: blocks of a few positions each, handed out, shared, known by their content, and taken back.

Paged attention (Kwon et al. 2023, section 4): memory for keys and values is cut into blocks; a text has a table of the
blocks that hold its positions, one after the other, wherever they lie. So memory is taken as a text grows, and texts
that begin alike share what they have in common.

A full block is known by its tokens and all tokens before them. When its last text ends, it stays until its place is
needed (the prefix cache); what was used longest ago goes first, and of a text its end before its beginning.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

ROOT = b""  # what comes before the first block


class NoRoom(Exception):
    """All blocks are in use."""


@dataclass(slots=True)
class Block:
    """`texts`: how many tables it is in. A full block that is known by its content has a `name`, which is made of the
    name of the block before it (`after`) and its `tokens`."""

    texts: int = 0
    name: bytes | None = None
    after: bytes = ROOT
    tokens: tuple[int, ...] = ()


def name_of(after: bytes, tokens: Sequence[int]) -> bytes:
    return hashlib.blake2b(after + array("q", tokens).tobytes(), digest_size=16).digest()


class BlockManager:
    """`n_blocks` blocks of `size` positions. A table is a list of block numbers, which the caller keeps and this class
    fills; position p of its text lies in block table[p // size], at place p % size."""

    def __init__(self, n_blocks: int, size: int = 16, *, prefix_cache: bool = True):
        self.size, self.prefix_cache = size, prefix_cache
        self.blocks = [Block() for _ in range(n_blocks)]
        self.free = list(range(n_blocks - 1, -1, -1))  # in no text, with nothing worth keeping; the last goes first
        self.kept: OrderedDict[int, None] = OrderedDict()  # in no text, known by their content; the first goes first
        self.known: dict[bytes, int] = {}  # name → block

    @property
    def available(self) -> int:
        """How many blocks can be handed out."""
        return len(self.free) + len(self.kept)

    def needed(self, positions: int) -> int:
        """How many blocks hold so many positions."""
        return -(-positions // self.size)

    def find(self, tokens: Sequence[int]) -> list[int]:
        """The blocks that hold what `tokens` begin with. At least one token is left over: somebody asks what comes
        after the last, so that one has to be computed. They are not taken yet (`share`)."""
        found, after = [], ROOT
        if not self.prefix_cache:
            return found
        for start in range(0, len(tokens) - self.size, self.size):
            part = tuple(tokens[start : start + self.size])
            name = name_of(after, part)
            number = self.known.get(name)
            if number is None:
                break
            block = self.blocks[number]
            if block.tokens != part or block.after != after:  # two texts of one name: as good as never
                break
            found.append(number)
            after = name
        return found

    def share(self, numbers: Sequence[int]) -> list[int]:
        """A table of these blocks, which other tables may have too."""
        for number in numbers:
            block = self.blocks[number]
            if block.texts == 0:
                self.kept.pop(number)
            block.texts += 1
        return list(numbers)

    def grow(self, table: list[int], positions: int) -> None:
        """Make the table hold so many positions. Raises NoRoom, with the table as it was, where that cannot be."""
        wanted = self.needed(positions) - len(table)
        if wanted > self.available:
            raise NoRoom
        table.extend(self._new() for _ in range(wanted))

    def own(self, table: list[int], position: int) -> tuple[int, int] | None:
        """Before something is written at `position`: if other texts have that block too, this one gets another. Returns
        (from, to) where the caller has to copy what is there. Raises NoRoom."""
        place = position // self.size
        if place >= len(table) or self.blocks[table[place]].texts == 1:
            return None
        if not self.available:
            raise NoRoom
        shared, table[place] = table[place], self._new()
        self.blocks[shared].texts -= 1
        return shared, table[place]

    def remember(self, table: list[int], tokens: Sequence[int], before: int, now: int) -> None:
        """The text's positions up to `now` hold what belongs to `tokens` (up to `before`: that was said already). Full
        blocks among them are known by their content from here on."""
        if not self.prefix_cache:
            return
        for place in range(before // self.size, now // self.size):
            block = self.blocks[table[place]]
            after = self.blocks[table[place - 1]].name if place else ROOT
            if block.name is not None or after is None:
                continue
            part = tuple(tokens[place * self.size : (place + 1) * self.size])
            name = name_of(after, part)
            block.name, block.after, block.tokens = name, after, part
            self.known.setdefault(name, table[place])  # another block may hold the same; that one stays the known one

    def release(self, table: list[int]) -> None:
        """The text needs its blocks no more. The table is empty then."""
        for number in reversed(table):  # so that its end is used again before its beginning
            block = self.blocks[number]
            block.texts -= 1
            if block.texts:
                continue
            if block.name is not None and self.known.get(block.name) == number:
                self.kept[number] = None
            else:
                self._forget(number)
                self.free.append(number)
        table.clear()

    def forget(self) -> None:
        """Empty the prefix cache, of what no text has."""
        while self.kept:
            number, _ = self.kept.popitem(last=False)
            self._forget(number)
            self.free.append(number)

    def check(self, tables: Sequence[list[int]]) -> None:
        """Raises AssertionError unless every block is in exactly the places that it should be in."""
        texts = [0] * len(self.blocks)
        for table in tables:
            assert len(set(table)) == len(table), "a block twice in a table"
            for number in table:
                texts[number] += 1
        assert texts == [block.texts for block in self.blocks], "a block is in other tables than it knows of"
        idle = sorted([*self.free, *self.kept])
        assert idle == [i for i, n in enumerate(texts) if n == 0], "a block is lost, or handed out and free at once"
        for name, number in self.known.items():
            assert self.blocks[number].name == name and number not in self.free, "a known block has other content"

    def _new(self) -> int:
        if self.free:
            number = self.free.pop()
        else:
            number, _ = self.kept.popitem(last=False)
            self._forget(number)
        self.blocks[number].texts = 1
        return number

    def _forget(self, number: int) -> None:
        block = self.blocks[number]
        if block.name is not None and self.known.get(block.name) == number:
            del self.known[block.name]
        block.name, block.after, block.tokens = None, ROOT, ()
