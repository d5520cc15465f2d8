"""What the tests of experiments share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny layers gain nothing from two threads, and lose much where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
