"""What people do with the panel, in a real browser, on a real graph, against the scene's truth."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from graph import pixels
from mobile_sam_ros.msg import Prompt, PromptArray
from robot import Robot, bare_socket, panel
from sensor_msgs.msg import Image

from mobile_sam.segments import inner_points
from mobile_sam.training.evaluate import mask_iou
from mobile_sam_ros.conversions import nanoseconds

WIDTH, HEIGHT = 320, 240
# Which pixels of the shown picture are painted, as bytes in base64.
PAINTED = """() => {
  const {width, height} = picture.image;
  const sheet = new OffscreenCanvas(width, height).getContext("2d");
  if (picture.painted) sheet.drawImage(picture.painted, 0, 0);
  const alpha = sheet.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 3);
  let text = "";
  for (let i = 0; i < alpha.length; i += 4096)
    text += String.fromCharCode(...alpha.subarray(i, i + 4096));
  return [btoa(text), picture.header.stamp];
}"""


@pytest.fixture
def truths(robot: Robot) -> list[Image]:
    """Fills with what is where, as the camera says it."""
    return robot.peer.listen("/truth/labels", Image)


def truth(robot: Robot, truths: list[Image], stamp: str) -> np.ndarray:
    """The object at each pixel of the image of a stamp."""

    def find() -> Image | None:
        return next((m for m in truths if nanoseconds(m.header.stamp) == int(stamp)), None)

    return pixels(robot.peer.wait(find, f"the truth of {stamp}"))


def largest(labels: np.ndarray) -> int:
    return int(np.bincount(labels.ravel())[1:].argmax()) + 1


def painted(page: Any) -> tuple[np.ndarray, str]:
    """Where the shown picture is painted, bool (H, W), and its stamp."""
    text, stamp = page.evaluate(PAINTED)
    alpha = np.frombuffer(base64.b64decode(text), np.uint8).reshape(HEIGHT, WIDTH)
    return alpha > 0, stamp


def click(page: Any, x: float, y: float, **how: Any) -> None:
    """Clicks on a pixel of the image."""
    bounds = page.locator("#picture").bounding_box()
    page.locator("#picture").click(
        position={"x": x / WIDTH * bounds["width"], "y": y / HEIGHT * bounds["height"]}, **how
    )


def paused_truth(page: Any, robot: Robot, truths: list[Image]) -> np.ndarray:
    """Pauses on an image whose truth is known, and returns that."""
    page.wait_for_function("picture.header.number > 0")
    robot.peer.wait(lambda: truths, "a truth")
    newest = nanoseconds(truths[-1].header.stamp)
    page.wait_for_function(f"BigInt(picture.header.stamp) > {newest}n")
    page.click("#pause")
    return truth(robot, truths, page.evaluate("picture.header.stamp"))


def keep(page: Any, tmp_path: Path, name: str) -> None:
    """Takes a picture of the page, to be looked at; also into $PANEL_PICTURES, if that is set."""
    page.screenshot(path=tmp_path / name)
    if os.environ.get("PANEL_PICTURES"):
        shutil.copy(tmp_path / name, os.environ["PANEL_PICTURES"])


def test_a_click_gives_the_mask_of_what_was_clicked_on(
    page: Any, robot: Robot, truths: list[Image], tmp_path: Path
) -> None:
    """On the very picture that was clicked on, and from then on, with its name, until removed."""
    labels = paused_truth(page, robot, truths)
    wanted = largest(labels)
    ((x, y),) = inner_points(labels == wanted, 1).tolist()
    click(page, x, y)
    page.wait_for_function("picture.header.still && picture.header.objects.length === 1")
    mask, stamp = painted(page)
    assert mask_iou(mask, truth(robot, truths, stamp) == wanted) > 0.75
    page.click("#pause")
    page.wait_for_function("!picture.header.still && picture.header.objects.length === 1")
    page.wait_for_function("picture.header.objects[0].age > 3")
    mask, stamp = painted(page)
    assert mask_iou(mask, truth(robot, truths, stamp) == wanted) > 0.75
    assert "active" in page.inner_text("#objects li")
    page.click("#objects button[title=Rename]")
    page.keyboard.type("mug")
    page.keyboard.press("Enter")
    page.wait_for_function("picture.header.objects[0].name === 'mug'")
    assert page.inner_text("#objects b").startswith("mug (object_")
    keep(page, tmp_path, "panel.png")
    page.click("#objects button[title=Remove]")
    page.wait_for_function("picture.header.objects.length === 0")
    assert page.locator("#objects li").count() == 0 and page.is_visible("#empty")


def test_without_viewers_nothing_is_listened_to(robot: Robot, browser: Any) -> None:
    """So that nothing is computed for nobody."""

    def listeners() -> int:
        return robot.peer.count_subscribers("/sam/segments")

    robot.peer.wait(lambda: not listeners(), "nobody listens")
    window = browser.new_page()
    window.goto(robot.address)
    robot.peer.wait(listeners, "the panel listens")
    window.close()
    robot.peer.wait(lambda: not listeners(), "nobody listens any more")


def test_what_was_asked_for_is_done_when_who_asked_has_left(robot: Robot) -> None:
    """As when a tab is closed right after a click: request and goodbye arrive together."""
    seen = robot.peer.listen("segments")
    stays = Prompt(id="mug", box=[10.0, 10.0, 60.0, 60.0])
    robot.peer.prompts.publish(PromptArray(mode=PromptArray.UNTIL_CLEARED, prompts=[stays]))
    robot.peer.wait(lambda: seen and seen[-1].segments, "the object")
    request = b'{"do": "clear"}'
    with bare_socket(robot.address) as connection:
        # RFC 6455, section 5.2: a text, then a close, both masked with zeros.
        text = bytes([0x81, 0x80 | len(request)]) + bytes(4) + request
        connection.sendall(text + bytes([0x88, 0x80]) + bytes(4))

    def is_silent() -> bool:  # without objects, the node has nothing to say of an image
        before = len(seen)
        robot.peer.spin_for(1.5)
        return len(seen) == before

    robot.peer.wait(is_silent, "no object any more", 15.0)


def test_a_page_outlives_its_connection_and_the_panel(
    page: Any, browser: Any, robot: Robot, truths: list[Image], tmp_path: Path
) -> None:
    """What is paused can still be clicked on; a panel that was started anew goes on."""
    labels = paused_truth(page, robot, truths)
    wanted = largest(labels)
    ((x, y),) = inner_points(labels == wanted, 1).tolist()
    page.wait_for_function("!asked")  # the one that was on its way has come
    page.evaluate("socket.close()")
    page.wait_for_function("document.getElementById('status').innerText.includes('trying again')")
    page.wait_for_function("document.getElementById('status').className === 'well'")
    click(page, x, y)
    page.wait_for_function("picture.header.still && picture.header.objects.length === 1")
    mask, _ = painted(page)
    assert mask_iou(mask, labels == wanted) > 0.75
    window = browser.new_page(bypass_csp=True)
    with panel(tmp_path, robot.node.domain) as address:
        window.goto(address)
        window.wait_for_function("picture !== null")
    # As if it had counted further than the next one ever will.
    window.evaluate("picture.header.number = Number.MAX_SAFE_INTEGER")
    with panel(tmp_path, robot.node.domain, port=urlsplit(address).port):
        window.wait_for_function("picture.header.number < Number.MAX_SAFE_INTEGER")
    window.close()


def test_a_page_that_gets_no_entry_any_more_says_so(
    browser: Any, robot: Robot, tmp_path: Path
) -> None:
    window = browser.new_page(bypass_csp=True)
    with panel(tmp_path, robot.node.domain, token="first") as address:
        window.goto(address)
        window.wait_for_function("picture !== null")
    with panel(tmp_path, robot.node.domain, token="second", port=urlsplit(address).port):
        window.wait_for_function("$('status').innerText.includes('the one that it prints')")
        assert window.inner_text("#status").startswith("No entry: the panel's address is")
    window.close()


def test_a_box_is_dragged(page: Any, robot: Robot, truths: list[Image]) -> None:
    labels = paused_truth(page, robot, truths)
    wanted = largest(labels)
    rows, columns = np.nonzero(labels == wanted)
    bounds = page.locator("#picture").bounding_box()
    scale = bounds["width"] / WIDTH
    page.mouse.move(bounds["x"] + columns.min() * scale, bounds["y"] + rows.min() * scale)
    page.mouse.down()
    page.mouse.move(bounds["x"] + columns.max() * scale, bounds["y"] + rows.max() * scale)
    page.mouse.up()
    page.wait_for_function("picture.header.still && picture.header.objects.length === 1")
    mask, _ = painted(page)
    assert mask_iou(mask, labels == wanted) > 0.6  # whichever image it was paused at


def test_corrections_are_of_the_selected_object(
    page: Any, robot: Robot, truths: list[Image]
) -> None:
    """Two clicks are two objects; those with Control and Shift say more of the one selected."""
    prompts = robot.peer.listen("/prompts", PromptArray)
    labels = paused_truth(page, robot, truths)
    page.click("#pause")
    page.select_option("#mode", "stay")
    present = [label for label in np.unique(labels) if label]
    for number, label in enumerate(present[:2], 1):
        ((x, y),) = inner_points(labels == label, 1).tolist()
        click(page, x, y)
        page.wait_for_function(f"picture.header.objects.length === {number}")
    second = page.evaluate("selected")
    assert page.evaluate("picture.header.objects[1].id") == second
    click(page, x + 1, y, modifiers=["Control"])
    click(page, 1, 1, modifiers=["Shift"])

    def corrected() -> Prompt | None:
        shown = [prompt for message in prompts for prompt in message.prompts]
        return next((p for p in shown if p.id == second and len(p.points) == 3), None)

    correction = robot.peer.wait(corrected, "two corrections")
    assert [point.label for point in correction.points] == [1, 1, 0]
    found = np.array([(point.x, point.y) for point in correction.points])
    assert np.abs(found - [(x, y), (x + 1, y), (1, 1)]).max() < 0.5
    assert page.evaluate("picture.header.objects.length") == 2
    page.keyboard.press("Escape")
    click(page, x, y, modifiers=["Shift"])
    page.wait_for_function("!document.getElementById('problem').hidden")
    assert "Select an object first" in page.inner_text("#problem")


def test_two_quick_clicks_in_a_paused_picture_are_two_objects(
    page: Any, robot: Robot, truths: list[Image]
) -> None:
    labels = paused_truth(page, robot, truths)
    for label in [label for label in np.unique(labels) if label][:2]:
        ((x, y),) = inner_points(labels == label, 1).tolist()
        click(page, x, y)
    page.wait_for_function("picture.header.still && picture.header.objects.length === 2")
    page.click("#pause")
    page.wait_for_function("!picture.header.still && picture.header.objects.length === 2")


def test_a_click_into_the_stream(page: Any, robot: Robot, truths: list[Image]) -> None:
    """Followed from then on; or only in that image, which is held."""
    labels = paused_truth(page, robot, truths)
    ((x, y),) = inner_points(labels == largest(labels), 1).tolist()
    page.click("#pause")
    click(page, x, y)
    page.wait_for_function("picture.header.objects.some((o) => o.state === 'active')")
    assert not page.evaluate("picture.header.still")
    page.select_option("#mode", "once")
    click(page, 5, 5)
    page.wait_for_function("paused && picture.header.objects.some((o) => o.id === selected)")


def test_what_stays_at_its_place_can_be_followed_instead(
    page: Any, robot: Robot, truths: list[Image]
) -> None:
    """And is then not at its place as well."""
    labels = paused_truth(page, robot, truths)
    ((x, y),) = inner_points(labels == largest(labels), 1).tolist()
    page.click("#pause")
    page.select_option("#mode", "stay")
    click(page, x, y)
    page.wait_for_function("picture.header.objects.length === 1")
    id = page.evaluate("selected")
    page.click("#objects button[title=Follow]")
    page.wait_for_function("picture.header.objects.some((o) => o.state === 'active')")
    page.wait_for_function("picture.header.objects.every((o) => o.state !== '')")
    assert page.evaluate("picture.header.objects.map((o) => o.id)") == [id]


def test_everything_and_following_one_of_it(
    page: Any, robot: Robot, truths: list[Image], tmp_path: Path
) -> None:
    labels = paused_truth(page, robot, truths)
    page.click("#everything")
    page.wait_for_function("picture.header.still && picture.header.objects.length > 1")
    mask, _ = painted(page)
    assert mask_iou(mask, labels > 0) > 0.5
    keep(page, tmp_path, "panel_everything.png")
    page.click("#objects button[title=Follow] >> nth=0")
    page.wait_for_function("!picture.header.still && picture.header.objects.length === 1")
    page.wait_for_function("picture.header.objects[0].state === 'active'")
    assert page.evaluate("picture.header.objects[0].id === selected && /^object_/.test(selected)")


def test_pause_holds_the_picture_and_step_takes_one(page: Any) -> None:
    page.keyboard.press("Space")
    page.wait_for_timeout(400)  # one that was on its way
    number = page.evaluate("picture.header.number")
    page.wait_for_timeout(800)
    assert page.evaluate("picture.header.number") == number
    page.click("#step")
    page.wait_for_function(f"picture.header.number > {number}")
    number = page.evaluate("picture.header.number")
    page.wait_for_timeout(800)
    assert page.evaluate("picture.header.number") == number
    page.keyboard.press("Space")
    page.wait_for_function(f"picture.header.number > {number + 1}")


def test_several_look_at_once_also_on_a_phone(
    page: Any, browser: Any, robot: Robot, truths: list[Image], tmp_path: Path
) -> None:
    """What one shows, the other sees; a tap is a click."""
    phone = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, bypass_csp=True
    )
    hand = phone.new_page()
    hand.goto(robot.address)
    hand.wait_for_function("picture !== null")
    labels = paused_truth(hand, robot, truths)
    wanted = largest(labels)
    ((x, y),) = inner_points(labels == wanted, 1).tolist()
    bounds = hand.locator("#picture").bounding_box()
    assert 380 <= bounds["width"] <= 390
    hand.touchscreen.tap(
        bounds["x"] + x / WIDTH * bounds["width"], bounds["y"] + y / HEIGHT * bounds["height"]
    )
    page.wait_for_function("picture.header.objects.length === 1")
    page.wait_for_function("document.getElementById('status').innerText.includes('2 viewers')")
    hand.click("#pause")
    hand.wait_for_function("picture.header.objects.length === 1 && !picture.header.still")
    mask, stamp = painted(hand)
    assert mask_iou(mask, truth(robot, truths, stamp) == wanted) > 0.75
    keep(hand, tmp_path, "panel_phone.png")
    phone.close()


def test_rates_latency_and_opacity_are_shown(page: Any, robot: Robot, truths: list[Image]) -> None:
    labels = paused_truth(page, robot, truths)
    ((x, y),) = inner_points(labels == largest(labels), 1).tolist()
    click(page, x, y)
    page.wait_for_function("picture.header.still")
    page.click("#pause")
    page.wait_for_function("reports.length > 0 && reports.at(-1).latency_ms !== null")
    assert "ms from image to mask" in page.inner_text("#latency")
    assert "images a second" in page.inner_text("#rate")
    page.wait_for_function("document.getElementById('status').className === 'well'")
    for _ in range(10):  # the object may just be hidden
        page.keyboard.press("Space")
        page.wait_for_timeout(500)
        mask, _ = painted(page)
        if mask.any():
            break
        page.keyboard.press("Space")
        page.wait_for_timeout(300)
    (row, *_), (column, *_) = np.nonzero(mask)
    pixel = f"[...context.getImageData({column}, {row}, 1, 1).data].slice(0, 3)"
    seen = []
    for opacity in (0, 100):
        page.evaluate(f"$('opacity').value = {opacity}; draw()")
        seen.append(page.evaluate(pixel))
    assert seen[0] != seen[1]
