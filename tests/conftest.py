"""What every test has: one torch thread, and a Weights & Biases client that knows no account."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from small_runs import Weights, dense_weights, resnet_config, small_config


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Before each test: the suite runs several processes at once, and sums are rounded as the number of threads has it.

    A command that is called in this process may have left another one.
    """
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def one_thread_for_fixtures() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def signals_are_not_ignored() -> None:
    """A background job of a script ignores SIGINT, one of nohup SIGHUP, and so would all that the tests start."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path_factory.getbasetemp() / "no-netrc"))


@pytest.fixture(autouse=True)
def no_site_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_CONFIG", "")


@pytest.fixture(scope="session")
def dense() -> Weights:
    """The weights of a small dense vision transformer that has been trained."""
    return dense_weights(small_config("method=dense"))


@pytest.fixture(scope="session")
def dense_resnet() -> Weights:
    """The weights of a small dense residual network that has been trained, its running statistics among them."""
    return dense_weights(resnet_config("method=dense"))
