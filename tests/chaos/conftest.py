"""Each test has a Sandpiper of its own to break."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from e2e_agents import make_stack  # noqa: E402


@pytest.fixture
def broken(request):
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    made = []

    def make(**kw):
        made.append(make_stack(**kw))
        return made[-1]

    yield make
    for s in made:
        s.stop()
