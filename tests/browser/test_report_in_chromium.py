"""The page as a person sees it: in Debian's headless Chromium, by mouse and by keyboard."""

import shutil
import threading

import pytest

from polytask.report import LiveServer, collect, page
from tests.report_folders import write_comparison, write_metrics, write_run

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no chromium and chromium-driver"),
    # Selenium leaves the driver's pipes to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]
EVIL = ("<script>alert(1)<script>", "parity")
PHONE, DESKTOP = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    folder = write_comparison(root / "cmp", methods=("equal", "uw", "pcgrad"), seeds=2)
    (folder / "report.html").write_text(page(collect([folder])), encoding="utf-8")
    runs = [write_run(root / name, EVIL, seed) for seed, name in enumerate(("one", "two"))]
    (root / "evil.html").write_text(page(collect(runs)), encoding="utf-8")
    return root


@pytest.fixture
def comparison(browser, folder):
    return opened(browser, (folder / "cmp" / "report.html").as_uri())


def opened(browser, address, size=DESKTOP, dark=False):
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(address)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".chart[data-drawn]"))
    return browser


def wait(browser, condition):
    return WebDriverWait(browser, 30, poll_frequency=0.05).until(lambda _: condition())


def chart(browser, title):
    found = next(
        each for each in browser.find_elements(By.CLASS_NAME, "chart")
        if each.find_element(By.TAG_NAME, "strong").text == title
    )  # fmt: skip
    browser.execute_script("arguments[0].scrollIntoView()", found)
    wait(browser, lambda: found.get_attribute("data-drawn") is not None)
    return found


def cells(browser, place):
    rows = browser.find_elements(By.CSS_SELECTOR, "#results tbody tr")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[place].text for row in rows]


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["cmp/report.html", "evil.html"])
def test_it_opens_without_errors_and_fits(browser, folder, name, size, dark):
    opened(browser, (folder / name).as_uri(), size, dark)
    for each in browser.find_elements(By.CLASS_NAME, "chart"):
        browser.execute_script("arguments[0].scrollIntoView()", each)
        wait(browser, lambda each=each: each.find_elements(By.CSS_SELECTOR, "svg.main-svg"))
    assert browser.get_log("browser") == []
    wide = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(21, 24, 29)" if dark else "rgb(255, 255, 255)")


def test_it_asks_for_nothing_but_itself(browser, folder):
    opened(browser, (folder / "cmp" / "report.html").as_uri())
    asked = [
        entry["message"]
        for entry in browser.get_log("performance")
        if "requestWillBeSent" in entry["message"]
    ]
    assert asked
    assert not [message for message in asked if '"url":"http' in message]


def test_a_task_called_script_is_shown(browser, folder):
    opened(browser, (folder / "evil.html").as_uri())
    assert chart(browser, f"Loss of {EVIL[0]}")
    norms = chart(browser, "Gradient norms, one")
    legend = [each.text for each in norms.find_elements(By.CSS_SELECTOR, ".legendtext")]
    assert legend == list(EVIL)


def test_lines_have_points_and_answer_the_mouse(comparison):
    found = chart(comparison, "Accuracy of digit")
    points = "return document.querySelector(arguments[0])"
    assert comparison.execute_script(points, ".plot .scatterlayer .trace path.js-line")
    legend = {each.text for each in found.find_elements(By.CSS_SELECTOR, ".legendtext")}
    assert legend == {"equal", "uw", "pcgrad", "plain_sum", "single-task"}
    plot = found.find_element(By.CSS_SELECTOR, ".plot .nsewdrag")
    webdriver.ActionChains(comparison).move_to_element(plot).perform()
    wait(
        comparison, lambda: found.find_elements(By.CSS_SELECTOR, ".hoverlayer .legendtext, .hoverlayer text")
    )


def test_single_task_models_are_dashed_lines(comparison):
    found = chart(comparison, "Accuracy of digit")
    dashes = [
        line.value_of_css_property("stroke-dasharray")
        for line in found.find_elements(By.CSS_SELECTOR, ".plot .scatterlayer .trace path.js-line")
        if line.value_of_css_property("stroke-width") == "1px"
    ]
    assert len(dashes) == 1
    assert dashes[0] != "none"


def test_the_condition_is_drawn_by_factors(comparison):
    found = chart(comparison, "Condition of the Gramian")
    kind = "return arguments[0].querySelector('.plot')._fullLayout.yaxis.type"
    assert comparison.execute_script(kind, found) == "log"
    assert len(found.find_elements(By.CSS_SELECTOR, ".plot .scatterlayer .trace path.js-line")) >= 4


def test_a_list_chooses_what_is_drawn(comparison):
    found = chart(comparison, "Loss of digit")
    ends = "return arguments[0].querySelector('.plot').data[2].y.length"
    assert comparison.execute_script(ends, found) == 6
    Select(found.find_element(By.TAG_NAME, "select")).select_by_visible_text("training, within epochs")
    assert found.get_attribute("data-drawn") == "2"
    assert comparison.execute_script(ends, found) == 24


def test_the_slider_moves_through_training_by_keyboard(comparison):
    found = chart(comparison, "Gradient cosines, uw")
    slider, said = found.find_element(By.CSS_SELECTOR, "input"), found.find_element(By.TAG_NAME, "output")
    matrix = "return arguments[0].querySelector('.plot').data[0].z"
    last = comparison.execute_script(matrix, found)
    assert said.text == "step 220"
    slider.send_keys(Keys.HOME)
    assert said.text == slider.get_attribute("aria-valuetext") == "step 0"
    assert comparison.execute_script(matrix, found) != last
    slider.send_keys(Keys.ARROW_RIGHT)
    assert said.text == "step 20"
    slider.send_keys(Keys.END)
    assert comparison.execute_script(matrix, found) == last


@pytest.mark.parametrize("place", [0, 1, 3, 6])
def test_the_table_sorts_both_ways_by_keyboard(comparison, place):
    def order(text):
        try:
            return float(text.split()[0].replace("+", ""))
        except ValueError:
            return text

    before = cells(comparison, place)
    button = comparison.find_elements(By.CSS_SELECTOR, "#results thead button")[place]
    button.send_keys(Keys.ENTER)
    empty = [text for text in before if text == "-"]
    filled = sorted((text for text in before if text != "-"), key=order)
    assert cells(comparison, place) == [*filled, *empty]
    button.send_keys(Keys.SPACE)
    assert [order(text) for text in cells(comparison, place) if text != "-"] == [
        order(text) for text in filled[::-1]
    ]
    assert cells(comparison, place)[len(filled) :] == empty
    head = comparison.find_elements(By.CSS_SELECTOR, "#results thead th")[place]
    assert head.get_attribute("aria-sort") == "descending"


def test_runs_without_a_number_stay_below_the_others(browser, tmp_path):
    """As a training that diverged leaves them."""
    header = "step,val/loss/digit/epoch,val/loss/parity/epoch,val/digit/Accuracy/epoch"
    runs = []
    for name, value in zip("abcdefg", ("nan", "inf", "0.5", "", "-inf", "10", "1e-05"), strict=True):
        runs.append(write_run(tmp_path / name, records=False))
        (runs[-1] / "metrics.csv").write_text(f"{header}\n9,1.0,1.0,{value}\n")
    (tmp_path / "report.html").write_text(page(collect(runs)), encoding="utf-8")
    opened(browser, (tmp_path / "report.html").as_uri())
    assert sorted_both_ways(browser, 3) == (
        ["-inf", "1e-05", "0.5", "10", "inf", "nan", ""],
        ["inf", "10", "0.5", "1e-05", "-inf", "nan", ""],
    )
    assert sorted_both_ways(browser, 0) == (list("abcdefg"), list("gfedcba"))


@pytest.mark.parametrize(
    ("ascending", "below"),
    [
        (["-inf", "-3 %", "−2 ± 1", "9e-05", "0.97 ± 0.01", "+2", "10", "inf ± nan"], ["nan", "-", ""]),
        (["zeta -inf %", "shape -25 %", "b -3 %", "digit +4 %", "a +10 %"], ["x nan %", "-"]),
        (["equal 2", "equal 10", "nan", "pcgrad 1"], ["-"]),
        (["20260131-120000-b", "20260131-120001-a", "20260131-130000-0"], [""]),
    ],
    ids=["numbers", "worst task", "names", "names that begin with digits"],
)
def test_cells_are_sorted_by_what_they_say(comparison, ascending, below):
    comparison.execute_script(
        """const body = document.querySelector("#results tbody"), row = body.rows[0];
        body.replaceChildren(...arguments[0].map((text) => {
          const copy = row.cloneNode(true);
          copy.cells[5].textContent = text;
          return copy;
        }));""",
        [*below, *ascending[1::2], *ascending[::2]],
    )
    assert sorted_both_ways(comparison, 5) == ([*ascending, *below], [*ascending[::-1], *below])


def sorted_both_ways(browser, place):
    button = browser.find_elements(By.CSS_SELECTOR, "#results thead button")[place]
    button.send_keys(Keys.ENTER)
    up = cells(browser, place)
    button.send_keys(Keys.ENTER)
    return up, cells(browser, place)


def test_everything_is_reached_with_the_tab_key(comparison):
    comparison.execute_script("document.body.focus(); scrollTo(0, 0)")
    reached = []
    for _ in range(200):
        comparison.switch_to.active_element.send_keys(Keys.TAB)
        element = comparison.switch_to.active_element
        if element.tag_name == "body":
            break
        reached.append((element.tag_name, element.get_attribute("type")))
    asked = (
        ("a", ""),
        ("button", "button"),
        ("select", "select-one"),
        ("input", "range"),
        ("input", "checkbox"),
    )
    assert {name for name, _ in asked} | {"div", "summary"} <= {name for name, _ in reached}
    sliders = comparison.find_elements(By.CSS_SELECTOR, "input[type=range]")
    assert reached.count(("input", "range")) == len(sliders) > 0
    assert comparison.find_element(By.CSS_SELECTOR, ".skip")


def test_only_differences_of_the_configs_are_shown_until_all_are_asked_for(comparison):
    def shown():
        rows = comparison.find_elements(By.CSS_SELECTOR, "#configs .differences tbody tr")
        return [row.find_element(By.TAG_NAME, "th").text for row in rows if row.is_displayed()]

    assert shown() == ["≠ system.weighting", "≠ seed"]
    comparison.find_element(By.ID, "only").send_keys(Keys.SPACE)
    assert shown() == ["≠ system.weighting", "system.optimizer.lr", "≠ seed"]


def test_the_theme_changes_with_a_key(comparison):
    body = "return getComputedStyle(document.body).backgroundColor"
    drawn = "return document.querySelector('.chart[data-drawn] .xtick text').style.fill"
    before = comparison.execute_script(body), comparison.execute_script(drawn)
    comparison.find_element(By.ID, "theme").send_keys(Keys.ENTER)
    after = comparison.execute_script(body), comparison.execute_script(drawn)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_live_page_follows_the_training_and_says_when_it_ends(browser, tmp_path):
    run = write_run(tmp_path / "live")
    with LiveServer(run, refresh_seconds=0.1) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            opened(browser, server.address)
            Select(chart(browser, "Loss of parity").find_element(By.TAG_NAME, "select")).select_by_index(1)
            write_metrics(run, ("digit", "parity"), 0, epochs=9)
            wait(browser, lambda: follows(browser, 9))
            chosen = Select(chart(browser, "Loss of parity").find_element(By.TAG_NAME, "select"))
            assert chosen.first_selected_option.text == "training"
            whole = (run / "metrics.csv").read_text()
            (run / "metrics.csv").write_text("")
            wait(browser, lambda: "metrics.csv" in browser.find_element(By.ID, "status").text)
            (run / "metrics.csv").write_text(whole)
            wait(browser, lambda: browser.find_element(By.ID, "status").text == "live")
        finally:
            server.shutdown()
            thread.join()
    wait(browser, lambda: browser.find_element(By.ID, "status").text == "The server has stopped.")


def test_a_live_page_that_begins_with_a_damaged_file_is_drawn_once_that_is_whole(browser, tmp_path):
    run = write_run(tmp_path / "live", records=False)
    with LiveServer(run, refresh_seconds=0.1) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            whole = (run / "config.yaml").read_text()
            (run / "config.yaml").write_text("a: &a [*a]\n")
            browser.get(server.address)
            wait(browser, lambda: "config.yaml" in browser.find_element(By.ID, "status").text)
            assert not browser.find_elements(By.CLASS_NAME, "chart")
            (run / "config.yaml").write_text(whole)
            wait(browser, lambda: follows(browser, 6))
            assert browser.find_element(By.ID, "status").text == "live"
        finally:
            server.shutdown()
            thread.join()


def follows(browser, epochs):
    try:
        plot = "return document.querySelector('.chart[data-drawn] .plot').data[0].x.length"
        return browser.execute_script(plot) == epochs
    except WebDriverException:
        # Between two drawings there is none.
        return False
