"""Each test has a Sandpiper of its own to break."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from campaign import Lane  # noqa: E402
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


@pytest.fixture
def lane():
    """Two of each daemon on the simulated E2B, with fail-points (campaign.py)."""
    made = []

    def make(**kw):
        made.append(Lane(**kw))
        return made[-1].start()

    yield make
    for m in made:
        m.stop()
