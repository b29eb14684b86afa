"""One device and several: what the numbers are said to be."""

import pytest

from experiments.clock_parts import devices
from experiments.clock_parts.devices import Spent
from experiments.clock_parts.settings import Machine
from llmjax.cycles.device import load_device


def test_a_token_is_told_in_cycles_of_one_device_and_of_several():
    machine = Machine(load_device("gpu:h100"), False)
    one = Spent("decode", 1, 4, 8e-3, 8e-3, 4e6, 0.0, 0.0)
    many = Spent("decode", 2, 4, 5e-3, 9e-3, 2e6, 8e3, 1e-3)
    section = devices.make_section(machine, [one, many])
    hertz = machine.device.clock_hz.value
    (said,) = section.findings
    assert f"{2e-3 * hertz:,.0f} cycles on one device and {1.25e-3 * hertz:,.0f} on 2: 1.6 times as fast" in said
    assert "sends 2.00 kB a token; 20% of its time" in said
    rows = section.tables[0].rows
    assert [row[1] for row in rows] == [1, 2] and rows[1][5] == pytest.approx(5e5)


def test_a_mesh_of_one_device_is_said():
    section = devices.section(None, Machine(load_device("gpu:h100"), False))
    assert section.findings == ("The mesh that was asked for is one device here.",)
