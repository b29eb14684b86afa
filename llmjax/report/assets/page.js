"use strict";
// One panel a program: its data, what is chosen in it, and its redrawing.

const METRICS = [
  ["flops", "FLOPs", "counted"], ["bytes", "bytes", "counted"], ["cycles", "cycles", "modelled"],
  ["measured", "measured", "measured"], ["compiler", "compiler's cycles", "compiler"],
];

// What a metric is called where it must be told whether it is a time or cycles.
function metricLabel(panel, metric) {
  const timed = { cycles: "predicted", measured: "measured" }[metric];
  return timed ? `${timed} ${panel.units[metric] === "s" ? "time" : "cycles"}` : METRICS.find(([name]) => name === metric)[1];
}

class Panel {
  constructor(root, data) {
    Object.assign(this, data);
    this.root = root;
    this.drawn = false;
    this.path = "";
    const best = ["measured", "cycles", "bytes"].find((metric) => metric in this.units);
    this.metric = best;
    this.shape = "icicle";
    this.counted = { ...this.units }; // the units that the page's figures are in
    this.hertz = this.device && this.device.clock_hz ? this.device.clock_hz.value : 0;
    this.clock = "measured_seconds" in this.columns ? "measured_seconds" : "seconds" in this.columns ? "seconds" : "";
    this.roles = this.rows.role.map((row) => row.name);
    const files = this.strings.filter((text, k) => text && this.sourceIndices().has(k));
    this.folder = commonFolder(files.map((text) => text.replace(/:\d+$/, "")));
  }

  sourceIndices() {
    this.sources = this.sources || new Set([...this.columns.source, ...this.fused.flat().map((part) => part[3])]);
    return this.sources;
  }

  find(selector) { return this.root.querySelector(selector); }
  text(field, op) { return this.strings[this.columns[field][op]]; }
  number(field, op) { return field in this.columns ? this.columns[field][op] : null; }
  bytes(op) { return this.columns.bytes_read[op] + this.columns.bytes_written[op]; }
  source(text) { return text ? text.replace(this.folder, "") : ""; }
  colour(role) { return this.colours[role] || cssColour("inner"); }

  value(metric, op) {
    if (metric === "bytes") return this.bytes(op);
    if (metric === "flops") return this.columns.flops[op];
    if (metric === "compiler") return this.number("compiler_cycles", op);
    const prefix = metric === "measured" ? "measured_" : "";
    return this.number(this.units[metric] === "s" ? `${prefix}seconds` : `${prefix}cycles`, op);
  }

  // What a figure of a metric is multiplied by to be in the unit that is chosen.
  scale(metric) { return this.counted[metric] === "cycles" && this.units[metric] === "s" ? 1 / this.hertz : 1; }

  // Tells times in cycles or in seconds.
  tell(unit) {
    for (const metric of ["cycles", "measured"]) if (this.counted[metric] === "cycles") this.units[metric] = unit;
    this.metrics();
    this.table.refresh();
    drawWhere(this);
  }

  show() {
    if (this.drawn) { drawCharts(this); return; }
    this.drawn = true;
    this.switches();
    this.table = new OpTable(this);
    drawCharts(this);
  }

  metrics() {
    const metrics = METRICS.filter(([name]) => name !== "compiler" || name in this.units);
    choice(this.find(".switch.metric"), metrics.map(([name, label, kind]) => {
      const missing = !(name in this.units);
      const title = missing ? `this program's cost.json has no ${name === "measured" ? "measured times" : "predicted cycles"}` : kind;
      return { value: name, label: name === "cycles" && this.units.cycles === "s" ? "predicted time" : label, missing, title };
    }), this.metric, (metric) => { this.metric = metric; drawWhere(this); });
  }

  switches() {
    this.metrics();
    if (this.hertz && ["cycles", "measured"].some((metric) => this.counted[metric] === "cycles")) {
      choice(this.find(".switch.unit"), [["cycles", "cycles"], ["s", "ms"]].map(([value, label]) => ({
        value, label, title: `times in ${value === "s" ? "seconds" : `cycles of the device's clock, ${short(this.hertz, "Hz")}`}` })), "cycles", (unit) => this.tell(unit));
    }
    choice(this.find(".switch.shape"), ["icicle", "treemap"].map((name) => ({ value: name, label: name })), this.shape, (shape) => {
      this.shape = shape;
      drawWhere(this);
    });
    const clocks = [["seconds", "predicted"], ["measured_seconds", "measured"]];
    choice(this.find(".switch.clock"), clocks.filter(([name]) => name in this.columns)
      .map(([value, label]) => ({ value, label })), this.clock, (clock) => { this.clock = clock; drawRoofline(this); });
  }

  // Shows the ops under a module path in the table; "" is all of them.
  focus(path) {
    this.path = path;
    this.table.page = 0;
    this.table.update();
  }
}

function choice(group, options, chosen, act) {
  group.replaceChildren(...options.map((option) => element("button", {
    type: "button", "data-value": option.value, "aria-pressed": String(option.value === chosen),
    disabled: option.missing, title: option.title,
    onclick: (event) => {
      for (const button of group.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      act(option.value);
    },
  }, option.label)));
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panels = data.map((program, k) => new Panel(document.getElementById(`program-${k}`), program));
  const tabs = [...document.querySelectorAll("[role=tab]")];
  let current = panels[0];

  function open(k) {
    tabs.forEach((tab, other) => tab.setAttribute("aria-selected", String(other === k)));
    panels.forEach((panel, other) => { panel.root.hidden = other !== k; });
    current = panels[k];
    current.show();
  }

  tabs.forEach((tab, k) => {
    tab.addEventListener("click", () => open(k));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (k + step + tabs.length) % tabs.length;
      tabs[next].focus();
      open(next);
    });
  });

  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
    root.dataset.theme = isDark ? "light" : "dark";
    current.show();
  });
  dark.addEventListener("change", () => current.show());

  // On paper: light, and as wide as an A4 sheet.
  let before = null;
  addEventListener("beforeprint", () => {
    before = { theme: root.dataset.theme };
    root.dataset.theme = "light";
    drawCharts(current, 690);
  });
  addEventListener("afterprint", () => {
    if (before && before.theme) root.dataset.theme = before.theme;
    else delete root.dataset.theme;
    before = null;
    current.show();
  });
  open(0);
}

start();
