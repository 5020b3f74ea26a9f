"""Each lesson in a real JupyterLab: opened in a browser, all cells run there, its figures looked at.

    python -m pytest -m slow tests/test_jupyterlab.py [-k 06_cdfp]

FVLFP_SCREENSHOTS=DIR keeps pictures of every figure, in the light and in the dark theme, for people's eyes.
Needs chromium and chromedriver (Debian: apt-get install chromium-driver).
"""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from fvlfp.course.tour import lessons

LESSONS = lessons()
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"),
]
MINUTES = 10
#: Lab draws only the cells on screen unless told otherwise.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
}


def keep_pictures() -> Path | None:
    folder = os.environ.get("FVLFP_SCREENSHOTS")
    return Path(folder) if folder else None


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab over copies of the lessons at the smoke profile; its address."""
    home = tmp_path_factory.mktemp("lab")
    for path in LESSONS:
        notebook = nbformat.read(path, as_version=4)
        (settings,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        settings.source = settings.source.replace('profile = "lesson"', 'profile = "smoke"')
        (home / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook, home / "notebooks" / path.name)
    for name, values in SETTINGS.items():
        file = home / "settings" / name
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    words += ["--ServerApp.port_retries=0"]  # at another port nobody would look for it
    words += ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    words += [f"--LabApp.user_settings_dir={home / 'settings'}", f"--ServerApp.root_dir={home / 'notebooks'}"]
    words += [f"--LabApp.workspaces_dir={home / 'workspaces'}", "--LabApp.news_url=None"]
    with (home / "lab.log").open("w") as log:
        server = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, cwd=home)
        address = f"http://127.0.0.1:{port}"
        try:
            wait(lambda: answers(f"{address}/api"), 300, (home / "lab.log").read_text)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1300,1400")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.set_script_timeout(60 * MINUTES)
        driver.command_executor.client_config.timeout = 60 * MINUTES + 10  # else it gives up after 2 minutes
        # A page without focus has no current notebook in JupyterLab, and no headless page has it by itself.
        driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        yield driver
    finally:
        driver.quit()


def answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


def wait(done, seconds, said=lambda: ""):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"waited {seconds} s in vain\n{said()}"
        time.sleep(0.5)


def command(driver, name, **words):
    """Run one of JupyterLab's own commands and wait until it is done."""
    script = "const done = arguments[2]; window.jupyterapp.commands.execute(arguments[0], arguments[1])"
    return driver.execute_async_script(f"{script}.then(() => done(''), e => done(String(e)))", name, words)


def outputs(driver):
    """What stands below the open notebook's code cells, as nbformat has it."""
    model = "window.jupyterapp.shell.currentWidget.content.model"
    notebook = driver.execute_script(f"return JSON.stringify({model}.toJSON())")
    code = [cell for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "a cell was not run"
    return [output for cell in code for output in cell["outputs"]]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson_in_jupyterlab(path, lab, browser):
    browser.get(f"{lab}/lab/tree/{path.name}?reset")
    ready = (
        "const w = window.jupyterapp && window.jupyterapp.shell.currentWidget;"
        "const session = w && w.sessionContext && w.sessionContext.session;"
        "return !!session && !!session.kernel && session.kernel.status === 'idle'"
    )
    wait(lambda: browser.execute_script(ready), 600)
    command(browser, "apputils:change-theme", theme="JupyterLab Light")
    assert command(browser, "notebook:run-all-cells") == ""
    wait(lambda: browser.execute_script(ready), 60 * MINUTES)
    shown = outputs(browser)
    assert [o["ename"] for o in shown if o["output_type"] == "error"] == []
    assert [o["text"] for o in shown if o.get("name") == "stderr"] == []
    figures = [o["data"]["image/png"] for o in shown if "image/png" in o.get("data", {})]
    assert figures or path.stem == "11_your_own_data"
    for number, figure in enumerate(figures):
        picture = Image.open(io.BytesIO(base64.b64decode(figure))).convert("RGBA")
        corners = [picture.getpixel((x, y)) for x in (0, picture.width - 1) for y in (0, picture.height - 1)]
        assert corners == [(255, 255, 255, 255)] * 4, f"figure {number} is no white card on a dark page"
    images = browser.find_elements("css selector", ".jp-OutputArea-output img")
    assert len(images) >= len(figures)
    page_width = browser.execute_script("return document.querySelector('.jp-Notebook').clientWidth")
    assert all(image.size["width"] <= page_width for image in images), "a figure is wider than the page"
    folder = keep_pictures()
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        command(browser, "apputils:change-theme", theme=theme)
        if folder:
            take(browser, images, folder, f"{path.stem}-{theme.split()[1].lower()}")
    command(browser, "kernelmenu:shutdown")
    command(browser, "docmanager:save")


def take(driver, images, folder: Path, name: str) -> None:
    """A picture of each figure with what stands around it."""
    folder.mkdir(parents=True, exist_ok=True)
    time.sleep(1)  # the theme's style sheet
    for number, image in enumerate(images):
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        time.sleep(0.2)
        driver.save_screenshot(str(folder / f"{name}-{number}.png"))
