import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from sandboxd_client import Daemon, leftovers, until  # noqa: E402


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="sandboxes need root"))


@pytest.fixture(scope="module")
def daemon():
    d = Daemon(files="256").start()
    try:
        yield d
        d.stop()
        until(lambda: not leftovers(d), 10, "nothing is left")
    finally:
        d.remove()


@pytest.fixture
def box(daemon):
    with daemon.create() as s:
        yield s
