"use strict";
// The plots of a page: drawn when they come near, redrawn in the colours of the theme, and all of them before printing.

const SERIES_COLOURS = ["#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2", "#2aa198", "#d8b426", "#9d755d", "#e88a97", "#8a8583"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const PAPER = 690; // pixels that an A4 sheet is wide

function faded(colour, opacity) {
  const [r, g, b] = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

function styled(trace) {
  const { colour: place, kind, band, total, equal, ...rest } = trace;
  const colour = SERIES_COLOURS[place % SERIES_COLOURS.length], soft = cssColour("soft");
  if (equal) return { ...rest, line: { width: 1, color: soft, dash: "dot" } };
  if (band) return { ...rest, line: { width: 0 }, fillcolor: faded(colour, 0.18) };
  if (trace.type === "bar") {
    const colours = total ? trace.x.map((_, k) => k === trace.x.length - 1 ? soft : colour) : colour;
    // What was measured is solid, all else hatched.
    const pattern = kind === "measured" || !kind ? {} : { pattern: { shape: "/", size: 6, solidity: 0.45, fillmode: "overlay", fgcolor: cssColour("paper") } };
    return {
      ...rest, marker: { color: colours, ...pattern, line: { width: 0 } }, textposition: "outside", cliponaxis: false, constraintext: "none",
      textfont: { size: 11, color: cssColour("ink") },
    };
  }
  return {
    ...rest, line: { color: colour, width: 2, dash: DASHES[Math.floor(place / SERIES_COLOURS.length) % DASHES.length] },
    marker: { color: colour, size: trace.mode === "markers" ? 8 : 4, line: { width: trace.mode === "markers" ? 1 : 0, color: cssColour("paper") } },
    ...("error_y" in trace ? { error_y: { ...trace.error_y, color: colour } } : {}),
  };
}

function drawPlot(chart, figure, width) {
  const bars = figure.traces.some((trace) => trace.type === "bar");
  const { xaxis, yaxis, ...rest } = figure.layout;
  const axes = {
    xaxis: { automargin: true, zeroline: bars, ...xaxis }, yaxis: { automargin: true, ...yaxis, ...(bars ? { showgrid: false, zeroline: false } : {}) },
    margin: { l: bars ? 20 : 58, r: 16, t: bars ? 8 : BAR, b: 44 }, hovermode: "closest",
    legend: { orientation: "h", x: 0, xanchor: "left", y: bars ? 1 : 1.02, yanchor: "bottom", font: { size: 11 } },
  };
  const size = width ? { width, height: figure.height } : { autosize: true };
  const made = layout({ ...axes, ...rest, ...size });
  for (const axis of ["xaxis", "yaxis"]) made[axis].title = { font: { size: 12 }, standoff: 6, ...(figure.layout[axis].title || {}) };
  Plotly.react(chart, figure.traces.map(styled), made, { ...CONFIG, responsive: !width });
}

function begin() {
  const figures = JSON.parse(document.getElementById("data").textContent);
  const charts = [...document.querySelectorAll(".chart.plot")];
  const drawn = new Set();
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function show(k, width) { drawn.add(k); drawPlot(charts[k], figures[k], width); }
  function again() { for (const k of drawn) show(k); }

  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const k = charts.indexOf(entry.target);
      if (entry.isIntersecting && !drawn.has(k)) show(k);
    }
  }, { rootMargin: "600px" });
  for (const chart of charts) watch.observe(chart);

  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
    root.dataset.theme = isDark ? "light" : "dark";
    again();
  });
  dark.addEventListener("change", again);

  // On paper: light, every plot, as wide as the sheet.
  let before = null;
  addEventListener("beforeprint", () => {
    before = { theme: root.dataset.theme };
    root.dataset.theme = "light";
    charts.forEach((_, k) => show(k, PAPER));
  });
  addEventListener("afterprint", () => {
    if (before && before.theme) root.dataset.theme = before.theme;
    else delete root.dataset.theme;
    before = null;
    again();
  });

  // The section that is read is marked in the contents.
  const links = [...document.querySelectorAll(".toc a")];
  const parts = links.map((link) => document.getElementById(link.hash.slice(1)));
  function mark() {
    const at = parts.filter((part) => part.getBoundingClientRect().top < 120).length - 1;
    links.forEach((link, k) => link.toggleAttribute("aria-current", k === Math.max(0, at)));
  }
  addEventListener("scroll", mark, { passive: true });
  mark();
}

begin();
