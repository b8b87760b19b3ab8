"""Prints the README's own commands, one a line: the lines of its first ```sh block. So CI cannot drift from it."""

import pathlib
import re

readme = (pathlib.Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
block = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)
if block is None:
    raise SystemExit("README.md has no ```sh block")
commands = [line for line in block.group(1).splitlines() if line.strip() and not line.startswith("#")]
if len(commands) != 2:
    raise SystemExit(f"README.md promises two commands, found {len(commands)}: {commands}")
print("\n".join(commands))
