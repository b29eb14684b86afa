"use strict";
// What one op is: facts, why it is bound as it is, its fused interior, its HLO.

function opDetail(panel, op) {
  const c = panel.columns, facts = [];
  const fact = (label, value) => { if (value) facts.push(element("dt", {}, label), element("dd", {}, value)); };
  fact("op", `${panel.text("name", op)} (${panel.text("opcode", op)}), in ${panel.text("computation", op)}`);
  fact("where", panel.text("module_path", op) || "unattributed");
  fact("role, pass", `${panel.text("role", op)}, ${panel.text("pass", op)}`);
  const source = panel.text("source", op), inside = panel.text("function", op);
  fact("source line", source && panel.source(source) + (inside ? `, in ${inside}` : ""));
  fact("library", panel.text("library", op));
  fact("unmodelled", panel.text("unmodelled", op));
  fact("runs", c.count[op].toLocaleString("en"));
  const flops = c.flops[op], products = c.matmul_flops[op];
  if (flops) fact("FLOPs", `${short(flops, "FLOP")}${products ? `, ${share(products, flops)} in matrix products` : ""}`);
  if (c.transcendentals[op]) fact("transcendentals", short(c.transcendentals[op]));
  fact("bytes", `${short(c.bytes_read[op], "B")} read, ${short(c.bytes_written[op], "B")} written`);
  if (flops && panel.bytes(op)) fact("intensity", `${(flops / panel.bytes(op)).toPrecision(3)} FLOP/B`);
  if (c.on_chip_bytes[op]) fact("bytes on the chip", short(c.on_chip_bytes[op], "B"));
  if (c.host_bytes[op]) fact("bytes of the host's memory", short(c.host_bytes[op], "B"));
  if (c.collective_bytes[op]) fact("sent to others", short(c.collective_bytes[op], "B"));
  const times = [
    ["predicted", "modelled", "seconds", "cycles", ["low", "high"]],
    ["measured", "measured", "measured_seconds", "measured_cycles", []],
    ["compiler", "compiler", "", "compiler_cycles", []],
  ];
  for (const [label, kind, time, cycles, [low, high]] of times) {
    const parts = [];
    const value = panel.number(time, op), ticks = panel.number(cycles, op);
    if (value !== null) parts.push(seconds(value));
    if (low && panel.number(low, op) !== null) parts.push(`${seconds(panel.number(low, op))} to ${seconds(panel.number(high, op))}`);
    if (ticks !== null) parts.push(`${short(ticks)} cycles`);
    if (kind === "compiler" && ticks !== null && panel.text("compiler_model", op)) parts.push(`by its ${panel.text("compiler_model", op)}`);
    if (parts.length) fact(label, element("span", { class: kind }, parts.join(", ")));
  }
  return element("div", { class: "detail" },
    element("div", { class: "grid" },
      element("div", {}, element("dl", {}, facts)),
      element("div", {}, element("h3", {}, "why this bound"), boundOf(panel, op), interior(panel, op))),
    hloOf(panel, op));
}

function boundOf(panel, op) {
  const bound = panel.text("bound", op), terms = (panel.number("breakdown", op) || []).slice().sort((a, b) => b[1] - a[1]);
  const why = element("p", { class: "why" });
  if (terms.length) {
    const [first, second] = terms;
    const rest = second && second[1] ? `; the next, ${second[0]}, is ${seconds(second[1])}` : "";
    const largest = !bound || bound === first[0] ? `at ${seconds(first[1])} that is the largest of the terms below${rest}` : `the largest of the terms below is ${first[0]}, ${seconds(first[1])}${rest}`;
    why.append(`Bound by ${bound || first[0]}: ${largest}. `, element("span", { class: "badge modelled" }, "modelled"));
    const bars = terms.map(([label, value]) => element("div", { class: "term" }, label,
      element("div", { class: "fill", style: `width:${100 * value / (first[1] || 1)}%` }), element("span", { class: "number" }, seconds(value))));
    return element("div", {}, why, bars);
  }
  const flops = panel.columns.flops[op], moved = panel.bytes(op), roofs = deviceRoofs(panel);
  if (bound) why.append(`Bound by ${bound}. `);
  else if (!moved) why.append("It moves no bytes of main memory. ");
  else if (!flops) why.append("It computes nothing, so only moving bytes can take time. ");
  if (roofs && flops && moved) {
    const ridge = roofs.peak.value / roofs.memory.value, own = flops / moved;
    const side = own < ridge ? "memory" : "compute";
    why.append(`Its ${own.toPrecision(3)} FLOP/B are ${own < ridge ? "below" : "above"} the ${ridge.toPrecision(3)} at which ${roofs.memory.name} (${short(roofs.memory.value, "B/s")}) keeps up with the ${roofs.peak.name} peak: on the roofline it is ${side}-bound.`);
  } else if (!roofs && !bound) {
    why.append("cost.json names no device, so there is no roof to hold it against.");
  }
  return why;
}

function interior(panel, op) {
  const parts = panel.fused[op];
  if (!parts.length) return element("div");
  const own = panel.columns.module_path[op];
  const rows = parts.map(([name, opcode, path, source, flops, transcendental, read, written]) => element("tr", {},
    element("td", { class: "name", title: panel.source(panel.strings[source]) }, panel.strings[name]),
    element("td", {}, panel.strings[opcode]),
    element("td", { class: "number" }, flops ? short(flops) : ""),
    element("td", { class: "number" }, transcendental ? short(transcendental) : ""),
    element("td", { class: "number" }, read ? short(read) : ""),
    element("td", { class: "number" }, written ? short(written) : ""),
    element("td", { class: "name" }, path === own ? "" : panel.strings[path] || "")));
  const heads = ["interior", "opcode", "FLOPs", "transc.", "read", "written", "of another path"];
  const head = heads.map((text, k) => element("th", { class: k > 1 && k < 6 ? "number" : "" }, text));
  return element("div", {}, element("h3", {}, `fused interior: ${parts.length} that cost something`), element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows)));
}

// The instruction's line and the computations it calls, as soon as they are unpacked.
function hloOf(panel, op) {
  const place = element("div");
  if (!panel.hlo) return place;
  panel.unpacked = panel.unpacked || unpack(panel.hlo);
  panel.unpacked.then((computations) => {
    const name = panel.text("name", op);
    const line = (computations[panel.text("computation", op)] || "").split("\n").find((candidate) => {
      const rest = candidate.trim().replace(/^ROOT /, "").replace(/^%/, "");
      return rest.startsWith(`${name} =`);
    });
    if (!line) return;
    const called = [...line.matchAll(/(?:calls|to_apply)=%?([^\s,}]+)/g)].map((match) => computations[match[1]]).filter(Boolean);
    place.append(element("h3", {}, "HLO"), element("pre", {}, [line.trim(), ...called].join("\n\n")));
  }, () => place.append("This browser cannot unpack the HLO text (it has no DecompressionStream)."));
  return place;
}

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
