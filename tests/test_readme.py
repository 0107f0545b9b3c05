"""The example in the README works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_example_and_its_tests_work(tmp_path: Path) -> None:
    text = README.read_text()
    gate, tests = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (routes,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "routes:" in block)
    (tmp_path / "gate.py").write_text(gate)
    (tmp_path / "apisix.yaml").write_text(routes)
    (tmp_path / "test_gate.py").write_text(tests)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_gate.py"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0 and "2 passed" in run.stdout, run.stdout + run.stderr


def test_the_two_commands_come_first_and_the_page_is_short() -> None:
    lines = README.read_text().splitlines()
    assert [line.split("#")[0].strip() for line in lines[4:8]] == ["```console", "$ make run", "$ make test", "```"]
    assert len(lines) < 150
