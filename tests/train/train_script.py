"""One training in a process of its own, for tests that kill it: train_script.py DATA RUN STEPS SAVE_EVERY PRECISION"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tiny import make_job, make_recipe

from llmwright.train.loop import train
from llmwright.train.run import Run

data, path, steps, save_every, precision = sys.argv[1:6]
recipe = make_recipe(steps=int(steps), save_every=int(save_every), precision=precision, accumulate=2,
                     growth=[[0.5, 48, 6]])
with Run(path) as run:
    train(make_job(Path(data), run, recipe, dropout=0.1))
