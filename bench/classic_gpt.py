"""The classic laptop recipe, as its readers know it: a small GPT on the characters of a text, in plain PyTorch.

4 layers, 4 heads, 128 wide, context 64, batch 12, 2,000 AdamW steps in float32, learning rate 1e-3 with 100 steps of
warm-up and a cosine down to 1e-4, betas 0.9 and 0.99, weight decay 0.1, gradient norm at most 1, no dropout: the figures
of nanoGPT's README for a laptop (1.88 there). Random windows for training; the whole held-out tenth is scored, in
windows of one context, each character once. Prints JSON: {"loss", "seconds", "parameters"}.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, STEPS = 4, 4, 128, 64, 12, 2000


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        B, T, _ = x.shape
        q, k, v = (t.view(B, T, HEADS, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, vocabulary: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, 0, 0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.norm(self.layers(x)) @ self.tokens.weight.T


def main(path: str) -> None:
    torch.manual_seed(1337)
    text = open(path, encoding="utf-8").read()
    letters = {c: i for i, c in enumerate(sorted(set(text)))}
    data = torch.tensor([letters[c] for c in text])
    cut = int(0.9 * len(data))
    train, held_out = data[:cut], data[cut:]
    model = GPT(len(letters))
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    started = time.perf_counter()
    for step in range(STEPS):
        cosine = 0.5 * (1 + math.cos(math.pi * max(step - 100, 0) / (STEPS - 100)))
        rate = 1e-3 * (step + 1) / 100 if step < 100 else 1e-4 + 9e-4 * cosine
        for group in optimizer.param_groups:
            group["lr"] = rate
        start = torch.randint(len(train) - CONTEXT, (BATCH,))
        rows = torch.stack([train[i : i + CONTEXT + 1] for i in start])
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - started
    with torch.no_grad():
        total = count = 0
        for i in range(0, len(held_out) - 1, CONTEXT * 64):
            piece = held_out[i : i + CONTEXT * 64 + 1]
            for inputs, targets in zip(piece[:-1].split(CONTEXT), piece[1:].split(CONTEXT)):
                total += F.cross_entropy(model(inputs[None])[0], targets, reduction="sum").item()
                count += len(targets)
    parameters = sum(p.numel() for p in model.parameters())
    print(json.dumps({"loss": total / count, "scored": count, "seconds": seconds, "parameters": parameters}))


if __name__ == "__main__":
    main(sys.argv[1])
