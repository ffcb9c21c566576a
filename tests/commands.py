"""``python -m tests.commands 'fit -c one.yaml' 'fit -c two.yaml'``: commands of ``zoo`` in turn, in one process.

Most of the time that a short training takes goes into starting a process.
"""

import shlex
import sys

import torch

from zoo.cli.command import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.argv[1:]:
        if code := main(shlex.split(line)):
            sys.exit(code)
