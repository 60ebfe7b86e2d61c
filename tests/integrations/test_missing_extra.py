"""Without langchain-core one sentence says what to install."""

from __future__ import annotations

import subprocess
import sys


def test_what_to_install() -> None:
    program = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "try:\n    import rag_ese.integrations.langchain\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.startswith("MissingExtraError the LangChain integration needs an optional dependency")
    assert 'pip install -e ".[langchain]"' in said.stdout
    assert said.stdout.count("\n") == 1
