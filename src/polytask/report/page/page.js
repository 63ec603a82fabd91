"use strict";
(() => {
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  let figures = JSON.parse(document.getElementById("figures").textContent);

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function layout(figure) {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
    const merged = (own) => ({ ...axis, ...own, title: { ...own.title, standoff: 8 } });
    return {
      ...figure.layout,
      xaxis: merged(figure.layout.xaxis),
      yaxis: merged(figure.layout.yaxis),
      font: { color: colour("--text"), size: 13, family: "system-ui, DejaVu Sans, sans-serif" },
      hoverlabel: { namelength: -1 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      showlegend: figure.data.filter((trace) => trace.name).length > 1,
      margin: { l: 8, r: 12, t: 12, b: 8 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
    };
  }

  function control(chart) {
    return chart.querySelector("input[type=range], select");
  }

  const eventOf = (input) => (input.tagName === "SELECT" ? "change" : "input");

  function shown(chart) {
    const input = control(chart);
    if (!input) return 0;
    return input.tagName === "SELECT" ? input.selectedIndex : Number(input.value);
  }

  function draw(chart) {
    const figure = figures[Number(chart.dataset.chart)][shown(chart)];
    const options = { responsive: true, displaylogo: false };
    Plotly.react(chart.querySelector(".plot"), structuredClone(figure.data), layout(figure), options);
    chart.dataset.drawn = shown(chart);
  }

  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      seen.unobserve(entry.target);
      draw(entry.target);
    }),
    { rootMargin: "600px" },
  );

  function drawAll() {
    document.querySelectorAll(".chart[data-drawn]").forEach(draw);
  }

  function watchControl(chart) {
    const input = control(chart);
    if (!input) return;
    input.addEventListener(eventOf(input), () => {
      if (input.type === "range") {
        const label = chart.querySelectorAll("datalist option")[shown(chart)].textContent;
        chart.querySelector("output").textContent = label;
        input.setAttribute("aria-valuetext", label);
      }
      draw(chart);
    });
  }

  // At the start, as in "0.97 ± 0.01", or after a task's name, as in "shape -25 %".
  const NUMBER = /^(?:\S+ (?=\S+ %$))?([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf|nan))(?=[\s%]|$)/i;

  // NaN for a cell without a value, null for one without a number.
  function number(text) {
    if (["", "-"].includes(text)) return NaN;
    const found = NUMBER.exec(text.replace("−", "-"));
    return found && Number(found[1].replace(/inf/i, "Infinity"));
  }

  function order(rows, column, sign) {
    const text = (row) => row.cells[column].textContent.trim();
    const numeric = rows.every((row) => number(text(row)) !== null);
    const isLast = (row) => (numeric ? Number.isNaN(number(text(row))) : ["", "-"].includes(text(row)));
    const byNumber = (a, b) => number(text(a)) - number(text(b));
    const byText = (a, b) => text(a).localeCompare(text(b), undefined, { numeric: true });
    const compare = numeric ? byNumber : byText;
    const filled = rows.filter((row) => !isLast(row));
    // Cells without a value stay last in either direction.
    return [...filled.sort((a, b) => sign * compare(a, b)), ...rows.filter(isLast)];
  }

  function watchTable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = table.tBodies[0];
      body.append(...order([...body.rows], column, ascending ? 1 : -1));
    }));
  }

  function watchDifferences() {
    const only = document.getElementById("only");
    if (!only) return;
    const apply = () => document.querySelector(".differences").classList.toggle("only", only.checked);
    only.addEventListener("change", apply);
    apply();
  }

  function start() {
    document.querySelectorAll(".chart").forEach((chart) => {
      watchControl(chart);
      seen.observe(chart);
    });
    document.querySelectorAll("table.sortable").forEach(watchTable);
    watchDifferences();
  }

  function setTheme(dark) {
    root.dataset.theme = dark ? "dark" : "light";
    drawAll();
  }

  document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme !== "dark"));
  prefersDark.addEventListener("change", (event) => setTheme(event.matches));
  addEventListener("beforeprint", () => document.querySelectorAll(".chart").forEach(draw));
  setTheme(prefersDark.matches);
  start();

  // A list keeps its choice; a slider at its end follows the training.
  function controls() {
    return [...document.querySelectorAll(".chart")].map((chart) => {
      const input = control(chart);
      const last = input && input.type === "range" && input.value === input.max;
      return [chart.querySelector("strong").textContent, input && !last ? input.value : null];
    });
  }

  function restore(kept) {
    const values = new Map(kept.filter(([, value]) => value !== null));
    document.querySelectorAll(".chart").forEach((chart) => {
      const value = values.get(chart.querySelector("strong").textContent);
      if (value === undefined) return;
      const input = control(chart);
      input.value = value;
      input.dispatchEvent(new Event(eventOf(input)));
    });
  }

  async function refresh(state) {
    const status = document.getElementById("status");
    try {
      const answer = await (await fetch(`news?since=${encodeURIComponent(state.version)}`)).json();
      if (answer.error) {
        status.textContent = answer.error;
        return;
      }
      status.textContent = "live";
      if (answer.version !== state.version) {
        const kept = controls();
        document.querySelectorAll(".plot").forEach((plot) => Plotly.purge(plot));
        figures = answer.figures;
        document.getElementById("content").innerHTML = answer.body;
        start();
        restore(kept);
        state.version = answer.version;
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      status.textContent = "The server has stopped.";
    }
  }

  if ("live" in document.body.dataset) {
    const state = { version: document.body.dataset.state };
    setInterval(() => refresh(state), Number(document.body.dataset.live));
  }
})();
