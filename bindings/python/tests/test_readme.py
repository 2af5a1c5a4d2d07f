"""The README's Python programs run, and print what it says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"


def programs() -> list[tuple[str, list[str]]]:
    """Each block of Python with the lines that it says it prints."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return [(block, re.findall(r"print\(.*\)\s+# (.*)", block)) for block in blocks]


def test_the_readmes_programs_do_what_it_says(tmp_path: Path) -> None:
    assert programs()
    for number, (program, expected) in enumerate(programs()):
        file = tmp_path / f"program_{number}.py"
        file.write_text(program)
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 30000 + number)}
        ranks = [
            subprocess.Popen(
                [sys.executable, str(file)],
                env={**os.environ, **common, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            for rank in ranks:
                printed, _ = rank.communicate(timeout=60)
                assert rank.returncode == 0 and printed.splitlines() == expected
        finally:
            for rank in ranks:
                rank.kill()
