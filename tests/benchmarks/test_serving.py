"""The benchmark of the service, small: it raises if a request is lost, mixed or disturbed."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")


def test_loads_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import serving

    sizes = {"requests": 16, "prefixes": 4, "at_a_time": 8, "fault_requests": 12}
    serving.main(["--shape", "toy", *(f"--{name}={size}" for name, size in sizes.items())])
    lines = capsys.readouterr().out.splitlines()
    assert "lost 0, other than alone 0, different texts 16" in lines
    assert "   12 sound, as alone with the old or the new prefix" in lines
    assert "    8 finished after SIGTERM" in lines
    assert any("queue overflows: 429" in line for line in lines)
