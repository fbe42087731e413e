"""The panel's fixtures: a robot, a panel alone, a real browser."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from chromium import NoBrowser, find_chromium
from domains import free_domain
from graph import peer, running
from robot import Robot, panel, ros_process

_STATE = """() => JSON.stringify({
  header: picture && picture.header, paused, asked, selected,
  problem: document.getElementById("problem").textContent,
  status: document.getElementById("status").textContent.trim(),
})"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Says of a test that fails what the page shows, and what the processes have said."""
    report = yield
    arguments = getattr(item, "funcargs", {})
    if report.when == "call" and report.failed and "robot" in arguments:
        if "page" in arguments:
            try:
                report.sections.append(("page", str(arguments["page"].evaluate(_STATE))))
            except Exception as error:  # what is raised here would end the whole run
                report.sections.append(("page", f"says nothing: {error}"))
        for log in sorted(arguments["robot"].node.log.parent.glob("*.log")):
            report.sections.append((log.name, log.read_text()[-4000:]))
    return report


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """A camera that sees the procedural scene, the node and the panel."""
    folder = tmp_path_factory.mktemp("robot")
    size = {"width": 320, "height": 240, "objects": 3, "seed": 5}
    # The demo weights think little of what they find by themselves.
    lax = {"everything_min_predicted_iou": 0.6, "everything_min_stability": 0.6}
    # Of the images that are clicked on, the node then only has what it is sent.
    short = {"frame_buffer": 1, "stale_after": 0.0}
    with running(folder / "sam.log", **short, **lax) as node, peer(node) as listener:
        camera = ros_process(
            "mobile_sam_ros.demo.camera", folder / "camera.log", node.domain, rate=4.0, **size
        )
        try:
            listener.wait(lambda: node.said("waiting for images"), "the node")
            with panel(folder, node.domain) as address:
                yield Robot(address, listener, node)
        finally:
            camera.kill()
            camera.wait()


@pytest.fixture(scope="module")
def lonely_panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A panel without anything else."""
    with panel(tmp_path_factory.mktemp("panel"), free_domain()) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    try:
        chromium = find_chromium()
    except NoBrowser as error:
        pytest.skip(str(error))
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium.program,
            args=[*quiet, "--disable-component-update", "--disable-sync", "--no-first-run"],
            env={**os.environ, **chromium.environment},
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, robot: Robot) -> Iterator[Any]:
    """The panel in a window of its own, with a first image; no error on its console."""
    problems: list[str] = []
    # Only so that the tests can look into the page; test_access has it as it is.
    context = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
    window = context.new_page()
    window.on("pageerror", lambda error: problems.append(str(error)))
    window.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    window.goto(robot.address)
    window.wait_for_function("picture !== null")
    yield window
    window.click("#clear")
    window.wait_for_function("!picture.header.still && picture.header.objects.length === 0")
    context.close()
    assert not problems
