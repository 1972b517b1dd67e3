"""Fixtures: one Sandpiper for all tests that do not break it."""

import os

import pytest

from e2e_agents import make_stack

@pytest.fixture(scope="session")
def stack():
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    s = make_stack()
    yield s
    s.quiet()
    s.stop()


@pytest.fixture
def client(stack):
    return stack.client
