"use strict";
// The table of ops: filtered, sorted, a page at a time, so that 10,000 ops are as quick as ten.

const PAGE = 40;

class OpTable {
  constructor(panel) {
    this.panel = panel;
    this.page = 0;
    this.open = new Set();
    this.columns = this.chooseColumns();
    this.sort = this.columns.find((column) => column.key === (panel.metric in panel.units ? panel.metric : "bytes"));
    this.descending = true;
    this.table = panel.find("table.ops");
    this.input = panel.find("input[type=search]");
    this.select = panel.find("select.role");
    this.input.addEventListener("input", () => { this.page = 0; this.update(); });
    const roles = panel.roles.map((role) => element("option", { value: role }, role));
    this.select.replaceChildren(element("option", { value: "" }, "every role"), ...roles);
    this.select.addEventListener("change", () => { this.page = 0; this.update(); });
    this.update();
  }

  chooseColumns() {
    const p = this.panel, c = p.columns, units = p.units;
    const text = (key, head, width, more) => ({ key, head, width, text: true, of: (op) => p.text(key, op) || "", ...more });
    const number = (key, head, width, of, show, more) => ({ key, head, width, of, show, ...more });
    const timed = "cycles" in units || "measured" in units;
    const columns = [
      text("name", "op", timed ? 15 : 20), ...(timed ? [] : [text("opcode", "opcode", 9, { wide: true })]),
      text("module_path", "where", timed ? 17 : 24), text("role", "role", 13, { wide: true }),
      number("count", "runs", 4, (op) => c.count[op], (value) => value.toLocaleString("en"), { wide: true }),
      number("flops", "FLOPs", 7, (op) => c.flops[op], (value) => value ? short(value) : ""),
      number("bytes", "bytes", 7, (op) => p.bytes(op), (value) => value ? short(value) : ""),
      number("intensity", "FLOP/B", 6, (op) => p.bytes(op) ? c.flops[op] / p.bytes(op) : 0, (value) => value ? value.toPrecision(3) : "", { wide: true }),
    ];
    if ("cycles" in units) {
      columns.push(number("cycles", metricLabel(p, "cycles"), 8, (op) => p.value("cycles", op), (value) => told(value, units.cycles), { kind: "modelled" }));
    }
    if ("bound" in c && c.bound.some((k) => p.strings[k])) columns.push(text("bound", "bound", 9));
    if ("measured" in units) {
      columns.push(number("measured", metricLabel(p, "measured"), 8, (op) => p.value("measured", op), (value) => told(value, units.measured), { kind: "measured" }));
    }
    if ("seconds" in c && "measured_seconds" in c) {
      const off = (op) => c.measured_seconds[op] && c.seconds[op] !== null ? c.seconds[op] / c.measured_seconds[op] - 1 : null;
      columns.push(number("error", "error", 5.5, off, (value) => value === null ? "" : `${value > 0 ? "+" : ""}${(100 * value).toFixed(0)}%`));
    }
    if ("compiler" in units) {
      columns.push(number("compiler", "compiler's cycles", 8, (op) => p.value("compiler", op), (value) => told(value, "cycles"), { kind: "compiler" }));
    }
    return columns;
  }

  // Chooses the columns anew, and sorts as before.
  refresh() {
    this.columns = this.chooseColumns();
    this.sort = this.columns.find((column) => column.key === this.sort.key);
    this.update();
  }

  haystack(op) {
    this.hay = this.hay || [];
    if (this.hay[op] === undefined) {
      const p = this.panel;
      const fields = ["name", "opcode", "module_path", "role", "source", "function", "library", "bound", "pass"];
      const words = fields.map((field) => p.text(field, op) || "");
      if (p.text("unmodelled", op)) words.push("unmodelled");
      this.hay[op] = words.join("\n").toLowerCase();
    }
    return this.hay[op];
  }

  matching() {
    const p = this.panel, words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean), role = this.select.value;
    const inPath = (op) => {
      const path = p.text("module_path", op) || "unattributed";
      return !p.path || path === p.path || path.startsWith(`${p.path}/`);
    };
    const found = [];
    for (let op = 0; op < p.n; op += 1) {
      if (role && p.text("role", op) !== role) continue;
      if (inPath(op) && words.every((word) => this.haystack(op).includes(word))) found.push(op);
    }
    const { of, text } = this.sort, way = this.descending ? -1 : 1;
    const numeric = new Intl.Collator("en", { numeric: true });
    const key = (op) => { const value = of(op); return value === null || value === undefined ? -Infinity : value; };
    // Equal ones stay in the order of the program.
    return found.sort((a, b) => (text ? way * numeric.compare(of(a), of(b)) : way * Math.sign(key(a) - key(b) || 0)) || a - b);
  }

  update() {
    const rows = this.matching(), pages = Math.max(1, Math.ceil(rows.length / PAGE)), p = this.panel;
    this.page = Math.min(this.page, pages - 1);
    const shown = rows.slice(this.page * PAGE, (this.page + 1) * PAGE);
    this.table.tHead.replaceChildren(element("tr", {}, this.columns.map((column) => this.head(column))));
    this.table.tBodies[0].replaceChildren(...shown.flatMap((op) => this.row(op)));
    const all = rows.length === p.n ? `${p.n.toLocaleString("en")} ops` : `${rows.length.toLocaleString("en")} of ${p.n.toLocaleString("en")} ops`;
    const chip = p.path ? element("span", { class: "chip" }, `in ${p.path}`, element("button", { type: "button", "aria-label": "all paths", onclick: () => p.focus("") }, "×")) : null;
    p.find(".count").replaceChildren(...[all, " ", chip].filter(Boolean));
    const turn = (label, to) => element("button", {
      type: "button", disabled: to < 0 || to >= pages, "aria-label": `${label} page`,
      onclick: () => { this.page = to; this.update(); },
    }, label === "next" ? "›" : "‹");
    p.find(".pages").replaceChildren(turn("previous", this.page - 1), `page ${this.page + 1} of ${pages}`, turn("next", this.page + 1));
  }

  head(column) {
    const sorted = column === this.sort ? (this.descending ? "descending" : "ascending") : "none";
    const act = () => {
      this.descending = column === this.sort ? !this.descending : !column.text;
      this.sort = column;
      this.page = 0;
      this.update();
      this.table.tHead.rows[0].cells[this.columns.indexOf(column)].focus();
    };
    return element("th", {
      class: `${column.text ? "" : "number"} ${column.kind || ""} ${column.wide ? "wide" : ""}`, "aria-sort": sorted, tabindex: 0, "data-key": column.key,
      style: `width:${column.width}%`, title: column.kind || "", onclick: act,
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } },
    }, column.head);
  }

  row(op) {
    const cells = this.columns.map((column) => {
      const value = column.of(op), shown = column.text ? value : column.show(value);
      const kind = column.key === "module_path" ? "path" : column.key === "name" ? "name" : column.text ? "" : "number";
      const content = kind === "path" ? element("bdi", {}, shown) : shown;
      return element("td", { class: `${kind} ${column.wide ? "wide" : ""}`, title: column.text ? value : null }, content);
    });
    const isOpen = this.open.has(op);
    const act = () => {
      if (isOpen) this.open.delete(op); else this.open.add(op);
      this.update();
      const again = this.table.querySelector(`tr[data-op="${op}"]`);
      if (again) again.focus({ preventScroll: true });
    };
    const row = element("tr", {
      class: `op ${this.panel.text("unmodelled", op) ? "unmodelled" : ""} ${isOpen ? "open" : ""}`, tabindex: 0, "data-op": op,
      "aria-expanded": String(isOpen), onclick: act,
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } },
    }, cells);
    if (!isOpen) return [row];
    return [row, element("tr", { class: "detail" }, element("td", { colspan: this.columns.length }, opDetail(this.panel, op)))];
  }

  // Brings one op into view, opened: what a click on a chart's point does.
  reveal(op) {
    this.input.value = "";
    this.select.value = "";
    this.panel.path = "";
    this.open.add(op);
    this.page = Math.floor(this.matching().indexOf(op) / PAGE);
    this.update();
    this.table.querySelector(`tr[data-op="${op}"]`).scrollIntoView({ block: "center" });
  }
}
