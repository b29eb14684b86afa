"use strict";
// The three charts. Points that lie on one another are one mark that names them all.

const NARROW = 520; // pixels
const BAR = 34; // pixels above a chart that plotly's buttons take
const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

function layout(extra) {
  const ink = cssColour("ink"), line = cssColour("line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { size: 11 }, title: { font: { size: 12 } } };
  const { xaxis, yaxis, ...rest } = extra;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12, family: "system-ui, sans-serif" },
    margin: { l: 64, r: 12, t: BAR, b: 46 }, hoverlabel: { align: "left", font: { size: 12 } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: cssColour("accent") },
    legend: { orientation: "h", y: -0.16, font: { size: 11 }, itemsizing: "constant" },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}

function drawCharts(panel, width) {
  panel.width = width;
  drawWhere(panel);
  drawRoofline(panel);
  drawScatter(panel);
  drawMemory(panel);
}

// Bytes held from step to step: arguments and constants are held throughout.
function drawMemory(panel) {
  const { memory } = panel, chart = panel.find(".chart.memory");
  if (!chart) return;
  chart.hidden = !memory.held.length;
  if (!memory.held.length) return;
  const x = memory.held.map((_, k) => k * memory.stretch);
  const trace = { type: "scatter", mode: "lines", x, y: memory.held, line: { shape: "hv", color: cssColour("compiler"), width: 1.5 }, fill: "tozeroy",
    hovertext: memory.held.map((held, k) => `step ${x[k].toLocaleString("en")}: ${short(held, "B")}`), hoverinfo: "text" };
  const highest = Math.max(...memory.held), step = 10 ** Math.floor(Math.log10(highest || 1));
  const marks = Array.from({ length: Math.ceil(highest / step) + 1 }, (_, k) => k * step);
  draw(panel, ".chart.memory", [trace], { showlegend: false,
    xaxis: { title: { text: "instruction, in the order of the program", font: { size: 12 } } },
    yaxis: { tickvals: marks, ticktext: marks.map((value) => tick(short(value, "B"))), rangemode: "tozero", automargin: true, title: { text: "held", standoff: 10, font: { size: 12 } } } });
}

function draw(panel, selector, traces, extra) {
  const chart = panel.find(selector);
  // A narrow screen has no room for the names of the colours: the table by role has them too.
  if (!panel.width && chart.clientWidth < NARROW) extra = { ...extra, showlegend: false };
  const size = panel.width ? { width: panel.width, height: selector === ".chart.tree" ? 300 : 400 } : { autosize: true };
  Plotly.react(chart, traces, { ...layout(extra), ...size }, { ...CONFIG, responsive: !panel.width });
  return chart;
}

const METRIC_NOTES = {
  flops: "FLOPs counted in the compiled program.", bytes: "Bytes of main memory at the border of each op, counted.",
  cycles: "Predicted by the cycle model; a fused op's time stands where most of it belongs.",
  measured: "Measured; a fused op's time stands where most of it belongs.",
  compiler: "The compiler's own estimate; a fused op's stands where most of it belongs.",
};

// Black or white, whichever is read better on a colour; on the blocks without one the page's ink.
function labelOn(colour) {
  if (!colour.startsWith("#")) return cssColour("ink");
  const [r, g, b] = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#111111" : "#ffffff";
}

// Ticks of a logarithmic axis at powers of ten, told as the rest of the page tells numbers.
function ticks(low, high, tell) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const powers = Array.from({ length: last - first + 1 }, (_, k) => Number(`1e${first + k}`));
  return { type: "log", tickvals: powers, ticktext: powers.map((power) => tick(tell(power))) };
}

// What a node and all below it have. A parent stands before its children.
function treeTotals(tree, metric) {
  const totals = new Map(tree.map((node) => [node.id, node[metric]]));
  for (const node of tree.slice().reverse()) {
    if (node.parent !== null) totals.set(node.parent, totals.get(node.parent) + totals.get(node.id));
  }
  return totals;
}

function drawWhere(panel) {
  const { metric } = panel, unit = panel.units[metric];
  const scale = panel.scale(metric);
  const totals = treeTotals(panel.tree, metric), ops = treeTotals(panel.tree, "ops");
  const nodes = panel.tree.filter((node) => totals.get(node.id) > 0);
  const total = totals.get("") || 0;
  const parents = new Set(nodes.map((node) => node.parent));
  const dim = cssColour("inner");
  panel.find(".where .hint").textContent = `${METRIC_NOTES[metric]} Click a block to zoom and to list its ops below.`;
  const trace = {
    type: panel.shape, branchvalues: "remainder", sort: false,
    ids: nodes.map((node) => `/${node.id}`), parents: nodes.map((node) => node.parent === null ? "" : `/${node.parent}`),
    labels: nodes.map((node) => plain(node.label)), values: nodes.map((node) => node[metric] * scale),
    customdata: nodes.map((node) => [node.id]),
    hovertext: nodes.map((node) => `<b>${plain(node.id || node.label)}</b><br>${told(totals.get(node.id) * scale, unit)}${unit === "cycles" ? " cycles" : ""} · ${share(totals.get(node.id), total) || "0%"}<br>${ops.get(node.id).toLocaleString("en")} ops${node.role ? `, ${plain(node.role)}` : ""}`),
    hoverinfo: "text", textinfo: "label", textfont: { color: nodes.map((node) => labelOn(node.role && !parents.has(node.id) ? panel.colour(node.role) : "")) },
    marker: { colors: nodes.map((node) => node.role && !parents.has(node.id) ? panel.colour(node.role) : dim), line: { width: nodes.length > 400 ? 0.3 : 1, color: cssColour("paper") } },
    tiling: panel.shape === "icicle" ? { orientation: "v", pad: 0 } : { packing: "squarify", pad: 2 },
    pathbar: { visible: panel.shape === "treemap" }, root: { color: dim }, leaf: { opacity: 1 },
  };
  const chart = draw(panel, ".chart.tree", [trace], { margin: { l: 0, r: 0, t: 0, b: 0 }, uniformtext: { minsize: 9, mode: "hide" } });
  chart.removeAllListeners(`plotly_${panel.shape}click`);
  chart.on(`plotly_${panel.shape}click`, (event) => {
    // A click on the block that is zoomed to goes up to its parent.
    const to = event.nextLevel === undefined ? event.points[0].id : event.nextLevel;
    panel.focus(String(to || "/").slice(1));
  });
  drawBars(panel, "role", total);
  drawBars(panel, "layer", total);
}

function drawBars(panel, key, total) {
  const { metric } = panel, place = panel.find(`.by.${key}`), unit = panel.units[metric];
  let rows = panel.rows[key].filter((row) => row[metric] > 0);
  if (key === "layer" && !rows.some((row) => /^\d+$/.test(row.name))) { place.replaceChildren(); return; }
  if (key === "role") rows = rows.slice().sort((a, b) => b[metric] - a[metric]);
  const most = Math.max(...rows.map((row) => row[metric]), 0);
  const lines = rows.map((row) => element("tr", {}, element("td", {}, row.name), element("td", { class: "number" }, row.ops.toLocaleString("en")),
    element("td", { class: "number" }, told(row[metric] * panel.scale(metric), unit)), element("td", { class: "number" }, share(row[metric], total)),
    element("td", { class: "bar" }, element("span", { class: "fill", style: `width:${100 * row[metric] / most}%;background:${key === "role" ? panel.colour(row.name) : cssColour("accent")}` }))));
  const heads = [`by ${key}`, "ops", metricLabel(panel, metric), "share", ""];
  place.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, heads.map((text, k) => element("th", { class: k && k < 4 ? "number" : "" }, text)))), element("tbody", {}, lines)));
}

// The peaks and bandwidths of the device, of the types that the program uses; null where no device is named.
function deviceRoofs(panel) {
  const { device } = panel;
  if (!device || !device.memory || !device.memory.length) return null;
  const of = (peaks, what) => {
    const all = Object.entries(peaks || {}), used = all.filter(([dtype]) => panel.dtypes.includes(dtype));
    return (used.length ? used : all).map(([dtype, figure]) => ({ name: `${what} ${dtype}`, value: figure.value, kind: figure.provenance }));
  };
  const peaks = [...of(device.matmul, "matmul"), ...of(device.vector, "vector")].sort((a, b) => b.value - a.value);
  // Equal peaks are one roof, with all their names.
  const compute = [];
  for (const peak of peaks) {
    const last = compute[compute.length - 1];
    const kind = last && last.kind !== peak.kind ? `${last.kind}, ${peak.kind}` : peak.kind;
    if (last && last.value === peak.value) compute[compute.length - 1] = { ...last, kind, name: `${last.name}, ${peak.name}` };
    else compute.push(peak);
  }
  const levels = device.memory.map((level) => ({ name: level.name, value: level.bandwidth.value, kind: level.bandwidth.provenance }));
  return compute.length ? { compute, levels, peak: compute[0], memory: levels[levels.length - 1] } : null;
}

// Groups ops whose marks would cover one another, a hundredth of a decade apart: [{ops, x, y}].
function clusters(ops, place) {
  const found = new Map();
  for (const op of ops) {
    const [x, y] = place(op);
    const key = `${Math.round(100 * Math.log10(x))} ${Math.round(100 * Math.log10(y))}`;
    if (!found.has(key)) found.set(key, { ops: [], x, y });
    found.get(key).ops.push(op);
  }
  return [...found.values()];
}

function pointTraces(panel, ops, place, weight, describe) {
  const total = ops.reduce((sum, op) => sum + (weight(op) || 0), 0) || 1;
  return panel.roles.map((role) => {
    const marks = clusters(ops.filter((op) => panel.text("role", op) === role), place);
    return {
      type: "scatter", mode: "markers", name: plain(role), x: marks.map((mark) => mark.x), y: marks.map((mark) => mark.y),
      customdata: marks.map((mark) => mark.ops[0]), hoverinfo: "text",
      hovertext: marks.map((mark) => {
        const [first, ...others] = mark.ops;
        const name = plain(panel.text("name", first)) + (others.length ? ` and ${others.length} alike` : "");
        return `<b>${name}</b><br>${plain(panel.text("module_path", first) || "unattributed")}<br>${describe(first)}`;
      }),
      marker: {
        color: panel.colour(role), opacity: 0.75, line: { width: 0.5, color: cssColour("paper") },
        size: marks.map((mark) => 6 + 34 * Math.sqrt(mark.ops.reduce((sum, op) => sum + (weight(op) || 0), 0) / total)),
      },
    };
  }).filter((trace) => trace.x.length);
}

function drawRoofline(panel) {
  const roofs = deviceRoofs(panel), clock = panel.clock, c = panel.columns, hints = [];
  const moving = [...Array(panel.n).keys()].filter((op) => panel.bytes(op) > 0 || c.flops[op] > 0);
  const ops = moving.filter((op) => !clock || c[clock][op] > 0);
  const own = ops.filter((op) => c.flops[op] && panel.bytes(op)).map((op) => c.flops[op] / panel.bytes(op));
  const least = Math.min(...own, 0.1), left = 10 ** Math.floor(Math.log10(least) - 0.5);
  const right = 1.5 * Math.max(...own, roofs ? 3 * roofs.peak.value / roofs.memory.value : 10);
  const intensity = (op) => !c.flops[op] ? left : panel.bytes(op) ? Math.min(right, c.flops[op] / panel.bytes(op)) : right;
  // An op without FLOPs is drawn as if it did `left` FLOPs a byte: its distance from the slope is that of its bandwidth.
  const work = (op) => c.flops[op] || left * panel.bytes(op);
  const height = (op) => {
    if (clock) return work(op) / c[clock][op];
    if (roofs) return Math.min(roofs.peak.value, intensity(op) * roofs.memory.value);
    return work(op);
  };
  if (!clock && roofs) hints.push("No times in cost.json: each op stands on the roof, at what it could reach at best.");
  if (!roofs && clock) hints.push("No device in cost.json, so there is no roof: FLOP/s against arithmetic intensity.");
  if (!roofs && !clock) hints.push("Neither a device nor times in cost.json: no roof, only how much each op computes (height) at which arithmetic intensity.");
  if (moving.some((op) => !c.flops[op])) hints.push("Ops without FLOPs stand at the left edge.");
  if (ops.length < moving.length) hints.push(`${(moving.length - ops.length).toLocaleString("en")} ops without a time are not shown.`);
  hints.push(`The area of a mark is its share of ${clock ? "the time" : "the bytes"}; a click opens the op below.`);
  panel.find(".roof .hint").textContent = hints.join(" ");
  const weight = clock ? (op) => c[clock][op] : (op) => panel.bytes(op);
  const traces = pointTraces(panel, ops, (op) => [intensity(op), height(op)], weight, (op) => [
    c.flops[op] ? `${short(c.flops[op], "FLOP")}, ` : "", short(panel.bytes(op), "B"),
    panel.bytes(op) && c.flops[op] ? `, ${(c.flops[op] / panel.bytes(op)).toPrecision(3)} FLOP/B` : "",
    clock ? `<br>${seconds(c[clock][op])}: ${short(c.flops[op] / c[clock][op], "FLOP/s")}, ${short(panel.bytes(op) / c[clock][op], "B/s")}` : "",
    panel.text("bound", op) ? `<br>bound by ${plain(panel.text("bound", op))}` : "",
  ].join(""));
  const notes = [];
  if (roofs) {
    const soft = cssColour("soft"), font = { size: 10.5, color: soft };
    const line = (x, y, dash) => traces.unshift({ type: "scatter", mode: "lines", x, y, line: { color: soft, width: dash ? 1 : 2, dash: dash || "solid" }, hoverinfo: "skip", showlegend: false });
    roofs.compute.forEach((roof, k) => {
      const near = k && roofs.compute[k - 1].value / roof.value < 1.5; // above the line its label would cover another's
      const from = roof.value / roofs.memory.value;
      line([Math.max(left, from), right], [roof.value, roof.value], k ? "dot" : "");
      notes.push({ x: Math.log10(right), y: Math.log10(roof.value), xanchor: "right", yanchor: near ? "top" : "bottom", text: plain(`${roof.name} ${short(roof.value, "FLOP/s")} (${roof.kind})`), showarrow: false, font });
    });
    const levels = roofs.levels.filter((level) => roofs.peak.value / level.value > left);
    levels.forEach((level, k) => {
      const end = roofs.peak.value / level.value, main = level === roofs.memory;
      line([left, end], [left * level.value, roofs.peak.value], main ? "" : "dot");
      // The lines lie close together: their labels stand above them all, in their order.
      notes.push({ x: Math.log10(left), y: Math.log10(left * Math.max(...levels.map((l) => l.value))), yshift: 22 + 13 * (levels.length - 1 - k), xanchor: "left", yanchor: "bottom", text: plain(`${level.name} ${short(level.value, "B/s")} (${level.kind})`), showarrow: false, font });
    });
  }
  const yTitle = clock ? `${clock === "seconds" ? "predicted" : "measured"} FLOP/s` : roofs ? "attainable FLOP/s" : "FLOPs";
  const heights = ops.map(height), unit = clock || roofs ? "FLOP/s" : "FLOP";
  const lowest = Math.min(...heights), highest = Math.max(...heights, roofs ? roofs.peak.value : 0);
  const tall = ticks(lowest, highest, (value) => value < 1 ? String(value) : short(value, unit));
  const chart = draw(panel, ".chart.roofline", traces, {
    hovermode: "closest", annotations: notes,
    xaxis: { ...ticks(left, right, (value) => value >= 1 ? short(value) : String(value)), title: { text: "arithmetic intensity, FLOP/B", font: { size: 12 } }, range: [Math.log10(left) - 0.15, Math.log10(right) + 0.1] },
    // Room for the roofs' names above the highest.
    yaxis: { ...tall, range: [Math.log10(lowest) - 0.4, Math.log10(highest) + (roofs ? 0.7 : 0.3)], automargin: true, title: { text: yTitle, standoff: 10, font: { size: 12 } } },
  });
  onPoint(panel, chart);
}

function drawScatter(panel) {
  const c = panel.columns, section = panel.find(".truth"), hint = panel.find(".truth .hint");
  const both = "seconds" in c && "measured_seconds" in c;
  const ops = both ? [...Array(panel.n).keys()].filter((op) => c.seconds[op] > 0 && c.measured_seconds[op] > 0) : [];
  const chart = panel.find(".chart.scatter");
  chart.hidden = !ops.length;
  if (!ops.length) {
    const missing = "seconds" in c ? "measured times" : "measured_seconds" in c ? "predicted times" : "predicted and measured times";
    hint.textContent = `Not drawn: this program's cost.json has no ${missing}${both ? " of the same ops" : ""}.`;
    return;
  }
  const errors = ops.map((op) => Math.abs(c.seconds[op] / c.measured_seconds[op] - 1)).sort((a, b) => a - b);
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const weighted = sum(ops.map((op) => Math.abs(c.seconds[op] - c.measured_seconds[op]))) / sum(ops.map((op) => c.measured_seconds[op]));
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  hint.textContent = `${ops.length.toLocaleString("en")} of ${panel.n.toLocaleString("en")} ops have both. Half of them are predicted within ${percent(errors[errors.length >> 1])}; weighted by time the error is ${percent(weighted)}. On the line a prediction is right; dotted: 25% off.`;
  const traces = pointTraces(panel, ops, (op) => [c.measured_seconds[op], c.seconds[op]], (op) => c.measured_seconds[op], (op) =>
    `measured ${seconds(c.measured_seconds[op])}, predicted ${seconds(c.seconds[op])}: ${(100 * (c.seconds[op] / c.measured_seconds[op] - 1)).toFixed(0)}%`);
  const all = ops.flatMap((op) => [c.seconds[op], c.measured_seconds[op]]);
  const ends = [Math.min(...all) / 1.5, Math.max(...all) * 1.5];
  for (const [factor, dash] of [[1, "solid"], [1.25, "dot"], [0.75, "dot"]]) {
    traces.unshift({ type: "scatter", mode: "lines", x: ends, y: ends.map((end) => end * factor), line: { color: cssColour("soft"), width: 1, dash }, hoverinfo: "skip", showlegend: false });
  }
  const axis = ticks(...ends, seconds);
  draw(panel, ".chart.scatter", traces, {
    hovermode: "closest",
    xaxis: { ...axis, title: { text: "measured", font: { size: 12 } } }, yaxis: { ...axis, automargin: true, title: { text: "predicted", standoff: 10, font: { size: 12 } } },
  });
  onPoint(panel, chart);
}

function onPoint(panel, chart) {
  chart.removeAllListeners("plotly_click");
  chart.on("plotly_click", (event) => {
    const op = event.points[0].customdata;
    if (op !== undefined) panel.table.reveal(op);
  });
}
