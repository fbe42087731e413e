"""The table of topics and services in the README is what the running node has."""

from __future__ import annotations

import re
from pathlib import Path

from graph import peer, running
from sensor_msgs.msg import PointCloud2

CHECKOUT = Path(__file__).resolve().parents[2]
# What every (lifecycle) node has.
COMMON = {"/rosout", "/parameter_events", "/clock", "/sam/transition_event"}
COMMON_SERVICE = re.compile(r"/sam/(\w*parameter\w*|change_state|get_\w+)")


def documented(direction: str) -> dict[str, str]:
    """Names and types of the rows of one direction, as the graph has them."""
    text = (CHECKOUT / "README.md").read_text()
    text = text[text.index("## Topics") :]
    found = {}
    for row in re.findall(rf"^\| {direction} \|(.+)\|$", text, re.MULTILINE):
        names, kinds = (cell.strip() for cell in row.split(" | ")[:2])
        package = ""
        for name, kind in zip(re.findall("`([^`]+)`", names), kinds.split(","), strict=True):
            first, _, rest = kind.split()[0].rpartition("/")
            package = first or package
            name = name.replace("~/", "/sam/").replace("<image>", "image")
            group = "srv" if direction == "service" else "msg"
            found["/" + name.lstrip("/")] = f"{package}/{group}/{rest}"
    return found


def test_the_readme_has_the_topics_and_services_of_the_node(tmp_path: Path) -> None:
    with running(tmp_path / "log") as node, peer(node) as graph:
        graph.stands()
        graph.listen("points", PointCloud2)  # for which depth is listened to

        here = ("sam", "/")
        graph.wait(lambda: here in graph.get_node_names_and_namespaces(), "the node in the graph")

        def subscriptions() -> dict[str, str]:
            pairs = graph.get_subscriber_names_and_types_by_node(*here)
            return {name: kinds[0] for name, kinds in pairs if name not in COMMON}

        graph.wait(lambda: "/camera_info" in subscriptions(), "the node listens to depth")
        assert subscriptions() == documented("in")
        publishers = graph.get_publisher_names_and_types_by_node(*here)
        published = {name: kinds[0] for name, kinds in publishers if name not in COMMON}
        assert published == documented("out")
        services = {
            name: kinds[0]
            for name, kinds in graph.get_service_names_and_types()
            if name.startswith("/sam/") and not COMMON_SERVICE.fullmatch(name)
        }
        assert services == documented("service")
