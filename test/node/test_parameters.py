"""The parameters on a real node, and that the YAML file says what the code says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobile_sam_ros import parameters

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def node(ros: None) -> Iterator[Node]:
    """A node with our parameters."""
    node = Node("parameters")
    parameters.declare(node)
    node.add_on_set_parameters_callback(parameters.check)
    yield node
    node.destroy_node()


def test_all_have_a_default_and_a_description(node: Node) -> None:
    assert parameters.read(node) == parameters.Parameters()
    for name in parameters.Parameters.__dataclass_fields__:
        assert node.describe_parameter(name).description.endswith("."), name


@pytest.mark.parametrize(
    ("name", "value"), [("weights", "other"), ("overlay_alpha", 1.5), ("max_objects", 0)]
)
def test_refuses_what_is_fixed_or_out_of_range(node: Node, name: str, value: object) -> None:
    before = parameters.read(node)
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful and name in result.reason
    assert parameters.read(node) == before


def test_takes_what_may_change(node: Node) -> None:
    (result,) = node.set_parameters([Parameter("overlay_alpha", value=0.25)])
    assert result.successful
    assert parameters.read(node).overlay_alpha == 0.25


def test_changes_of_others_change_nothing_of_ours() -> None:
    """As that of use_sim_time, which every node has."""
    changes = [Parameter("use_sim_time", value=True), Parameter("min_score", value=0.5)]
    values = parameters.changed(parameters.Parameters(max_objects=3), changes)
    assert values == parameters.Parameters(max_objects=3, min_score=0.5)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("image_transport", "theora", ValueError),
        ("min_score", 2.0, InvalidParameterValueException),
    ],
)
def test_refuses_bad_values_at_start(
    ros: None, name: str, value: object, error: type[Exception]
) -> None:
    node = Node("bad", parameter_overrides=[Parameter(name, value=value)])
    with pytest.raises(error, match=name):
        parameters.declare(node)
    node.destroy_node()


def test_yaml_file_holds_the_defaults_of_all_that_may_change() -> None:
    text = (CHECKOUT / "config/sam.yaml").read_text()
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    fields = parameters.Parameters.__dataclass_fields__
    changing = {n: f.default for n, f in fields.items() if not f.metadata["read_only"]}
    assert values == changing | {"frame_buffer": fields["frame_buffer"].default}
