"""The security policy allows what the running node does, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from graph import Peer, peer, running
from sensor_msgs.msg import PointCloud2

POLICY = Path(__file__).resolve().parents[2] / "config/sros2/sam.policy.xml"
# Of other settings: image_transport, use_sim_time.
OTHERWISE = {"subscribe": {"/image/compressed", "/clock"}}


def allowed(node: str, kind: str) -> set[str]:
    """Full names that the policy allows a node to publish, subscribe or reply to."""
    profile = ElementTree.parse(POLICY).find(f".//profile[@node='{node}']")
    assert profile is not None and profile.get("ns") == "/"
    names = [
        item.text or ""
        for group in profile
        for item in group
        if group.get(kind) == "ALLOW"  # and of nothing is anything denied
    ]
    return {name.replace("~", f"/{node}") if name[0] in "~/" else f"/{name}" for name in names}


def test_policy_is_what_the_node_does(tmp_path: Path) -> None:
    nodes = ("sam", "_sam_services")
    with running(tmp_path / "log") as node, peer(node) as graph:
        graph.stands(graph.images)
        graph.listen("/sam/points", PointCloud2)  # so that it listens to depth

        def found(graph: Peer, name: str) -> dict[str, set[str]]:
            queries = {
                "publish": graph.get_publisher_names_and_types_by_node,
                "subscribe": graph.get_subscriber_names_and_types_by_node,
                "reply": graph.get_service_names_and_types_by_node,
            }
            return {kind: {topic for topic, _ in ask(name, "/")} for kind, ask in queries.items()}

        graph.wait(lambda: {*nodes} <= {*graph.get_node_names()}, "the discovery of both nodes")
        for topic in ("/depth", "/camera_info"):
            graph.wait(lambda t=topic: t in found(graph, "sam")["subscribe"], topic)
        for name in nodes:
            for kind, names in found(graph, name).items():
                other = OTHERWISE.get(kind, set()) if name == "sam" else set()
                assert allowed(name, kind) - other == names, (name, kind)
        assert not graph.get_client_names_and_types_by_node("sam", "/")
        assert {name for name, _ in graph.get_node_names_and_namespaces()} == {*nodes, "peer"}
