"""What the launch files have to know of the node: its parameters, and its topics.

Without `launch` and without torch: launch files are described in a process that stays.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mobile_sam_ros.parameters import Parameters

FROM_FILE = "as params_file says"
"""Value of an argument that was not given, and so does not come before the file's."""

TOPICS = {
    "image": "Topic of the images.",
    "detections": "Topic of a detector's boxes, of type detections_type.",
    "prompts": "Topic of prompts, mobile_sam_ros/PromptArray.",
    "depth": "Topic of depth registered to the images, for the 3-D outputs.",
    "camera_info": "Topic of the images' calibration, for the 3-D outputs.",
    "clicked_point": "Topic of clicks, geometry_msgs/PointStamped in pixels.",
}
"""The node's inputs that have an argument of their name, and what it is."""

_LAYOUT_NODE = "/sam/"  # the node whose outputs RViz's layout names
# Where the objects' points are in the robot, and how the node was.
_BESIDE = ("/tf", "/tf_static", "/diagnostics")


@dataclass(frozen=True)
class Argument:
    """A parameter of the node as an argument.

    choices: what it may be, `FROM_FILE` among them; None: anything of its kind.
    """

    kind: type
    description: str
    choices: tuple[str, ...] | None


def arguments() -> dict[str, Argument]:
    """Returns an argument for each parameter, by its name."""
    found = {"use_sim_time": Argument(bool, "Take the time from /clock.", None)}
    for item in dataclasses.fields(Parameters):
        choices = item.metadata["choices"]
        found[item.name] = Argument(
            type(item.default),
            item.metadata["description"],
            (FROM_FILE, *choices) if choices else None,
        )
    return found


@dataclass(frozen=True)
class Place:
    """Where a node is: its namespace, `/` or as `/robot/front`, and its name."""

    namespace: str
    name: str

    def resolved(self, topic: str) -> str:
        """Returns the full name of a topic that may be relative."""
        return topic if topic.startswith("/") else f"{self.namespace.rstrip('/')}/{topic}"

    @property
    def full_name(self) -> str:
        """As `/robot/front/sam`."""
        return self.resolved(self.name)

    @property
    def private(self) -> str:
        """What the names of its own topics begin with, as `/robot/front/sam/`."""
        return f"{self.full_name}/"


def places(namespace: str, name: str, cameras: str, pushed: str = "") -> list[Place]:
    """Returns where the node is; with cameras, separated by commas, where each camera's is.

    `pushed` is the namespace that a relative one lies in.
    """
    base = "/" + posixpath.join(pushed, namespace).strip("/")
    spaces = [f"{base.rstrip('/')}/{camera}" for camera in cameras.split(",") if camera]
    return [Place(space, name) for space in spaces or [base]]


def parameters_file(places: Iterable[Place], values: Mapping[str, Any]) -> str:
    """Returns the contents of a file of parameters, which come before all other files' for nodes.

    By the nodes' full names: what another file has by those would come before `/**`.
    """
    # JSON is YAML in which each text is in quotes, or else one like 12 or no would be something
    # else to the node. But in YAML an escape of JSON's is not half of a character.
    named = {place.full_name: {"ros__parameters": dict(values)} for place in places}
    return json.dumps(named, ensure_ascii=False)


def read_parameters(path: str) -> Any:
    """Returns a file of parameters as it is read from YAML.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"params_file {path} cannot be read: {error}") from error


def parameters_of(contents: Any, place: Place) -> dict[str, Any]:
    """Returns what a file of parameters, as it is read, has for all nodes or for one by its name.

    Only for what runs beside the node: the node reads the file itself, with all that it may hold.
    """
    found: dict[str, Any] = {}
    for name in ("/**", place.full_name.lstrip("/"), place.full_name):
        node = contents.get(name) if isinstance(contents, Mapping) else None
        values = node.get("ros__parameters") if isinstance(node, Mapping) else None
        found |= values if isinstance(values, Mapping) else {}
    return found


def recorded(
    places: Iterable[Place], topics: Mapping[str, str], compressed: Container[Place]
) -> str:
    """Returns the regular expression of the topics that a bag has to hold: all inputs and outputs.

    But not the overlays as raw images, which are there as JPEG.

    Args:
        places: of the nodes.
        topics: names of the inputs, by the keys of `TOPICS`.
        compressed: those of nodes that take their images compressed.
    """
    patterns = [re.escape(topic) for topic in _BESIDE]
    for place in places:
        image = place.resolved(topics["image"])
        inputs = [place.resolved(topics[name]) for name in TOPICS if name != "image"]
        taken = f"{image}/compressed" if place in compressed else image
        inputs += [taken, f"{image}_mouse_left"]
        patterns += [re.escape(topic) for topic in inputs]
        patterns.append(re.escape(place.private) + "(?!overlay$).+")
    return f"^({'|'.join(dict.fromkeys(patterns))})$"


def panel_remappings(place: Place, topics: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns what has to be remapped for the panel to belong to a node.

    Args:
        place: of the node.
        topics: names of the inputs, by the keys of `TOPICS`.
    """
    image = place.resolved(topics["image"])
    own = ("segments", "segment", "segment_everything", "clear_prompts")
    return [
        ("image", image),
        ("image/compressed", f"{image}/compressed"),
        ("prompts", place.resolved(topics["prompts"])),
        *((f"sam/{name}", place.private + name) for name in own),
    ]


def layout_topics(layout: Any) -> set[str]:
    """Returns the topics of RViz's layout, as it is read from YAML."""
    if isinstance(layout, Mapping):
        topic = layout.get("Topic")
        own = {topic["Value"]} if isinstance(topic, Mapping) and topic.get("Value") else set()
        return own.union(*map(layout_topics, layout.values()))
    if isinstance(layout, Sequence) and not isinstance(layout, str):
        return set().union(*map(layout_topics, layout))
    return set()


def layout_remappings(layout: Any, place: Place, image: str) -> list[tuple[str, str]]:
    """Returns what has to be remapped for RViz's layout to show a node.

    Args:
        layout: as it is read from YAML; it shows the node /sam and its images on /image.
        place: of the node.
        image: topic of its images.
    """
    remappings = [
        (topic, place.private + topic[len(_LAYOUT_NODE) :])
        for topic in sorted(layout_topics(layout))
        if topic.startswith(_LAYOUT_NODE)
    ]
    return [("/image", place.resolved(image)), *remappings]
